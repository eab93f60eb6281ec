"""Imported by the fork server, and by nothing else: sets Django up there.

A module of its own, so that carpool itself has been imported whole by then: the apps that are set
up may import from it.
"""

from carpool.executors.preload import preload_if_asked

preload_if_asked()
