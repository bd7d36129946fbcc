"""Connects to Ray: an instance on this machine or a cluster, its resources, and batch jobs.

`connection` is the only module of the project that uses Ray's private interfaces.
"""
