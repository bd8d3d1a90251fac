"""Disk to values and back: scans, label maps, tables, manifests; everything written under a temporary name first."""
