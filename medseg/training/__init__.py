"""From a data manifest to a trained MONAI bundle."""
