"""Many scans: find the cases of an archive, run them in worker processes, keep a ledger, assemble the tables."""
