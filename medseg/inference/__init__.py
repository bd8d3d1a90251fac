"""A trained network applied to a volume: windows, test-time mirroring, export to the scan's own grid."""
