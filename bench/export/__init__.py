"""Exported tickets: a folder that anybody can load, formats of other runtimes, and the hub."""
