"""Job files: one command or several stages in a YAML file, which go on wherever they were stopped.

`definition` reads a file, `references` are the results of earlier stages in it, `state` is what
the store keeps of a job, and `runner` runs it.
"""
