"""Tickets taken out: a folder that anybody can load, other runtimes' formats, the hub."""
