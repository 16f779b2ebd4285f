"""Who writes a file: names of half-written files and folders, so that machines that share a store do not meet."""

import os
import re
import secrets
import socket
import time
from pathlib import Path

import psutil

DAY = 86400.0


def host() -> str:
    """This machine's name, or ``$BENCH_HOST``; dots are left out."""
    return re.sub(r"[^A-Za-z0-9-]", "-", os.environ.get("BENCH_HOST") or socket.gethostname())


def owner() -> str:
    """``host.pid.token``: no two processes of any machines, nor two writes of one process, ever have the same."""
    return f"{host()}.{os.getpid()}.{secrets.token_hex(4)}"


def abandoned(path: Path) -> bool:
    """Whether nobody finishes what lies under a name ``NAME.<owner>.partial``: its process is gone, or it is a day old."""
    match = re.search(r"\.([A-Za-z0-9-]+)\.(\d+)\.[0-9a-f]{8}\.partial$", path.name)
    if match is None:  # of a version that named no host
        return True
    try:
        return (match[1] == host() and not psutil.pid_exists(int(match[2]))) or time.time() - path.stat().st_mtime > DAY
    except FileNotFoundError:
        return False
