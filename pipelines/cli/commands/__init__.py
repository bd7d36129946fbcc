"""The commands: a module here is a command of the same name.

A module has a docstring, whose first line the help shows, `ORDER`, its place in the help, `USAGE`,
how it is called, and `main(args) -> int`, which returns the exit code. It is imported when its
command is called, or when help is shown, so imports of torch, Ray and MLflow stand in `main`.
"""
