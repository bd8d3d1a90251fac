"""The command line: one module a command; each parses, calls one public function and prints.

stdout is the result, stderr is progress, logs and errors. Everything heavy is imported inside the commands, so that
`medseg --help` answers at once.
"""
