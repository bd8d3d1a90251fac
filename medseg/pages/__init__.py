"""The frame, the look and the policy that all HTML pages share."""
