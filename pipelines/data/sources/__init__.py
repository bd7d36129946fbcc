"""The data sources: each module here reads one kind of data and defines `SOURCE`.

`pipelines.data.loading` finds the modules by listing this folder, so a further data source is
one new file. `pipelines.data.source` documents what the file defines. A module here imports
torch, torchvision and other large libraries within functions, because the command line's help
lists the names of all sources.
"""
