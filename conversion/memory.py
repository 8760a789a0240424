"""How much memory this process may still take, as far as the system says."""

import pathlib


def available_memory() -> int | None:
    """Return bytes that can be taken without swapping, the least of three limits; None where the system says none."""
    limits = [_machine(), _control_group(), _address_space()]
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None


def _machine():
    return _field("/proc/meminfo", "MemAvailable:")


def _control_group():
    try:
        most = int(pathlib.Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(pathlib.Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):  # no control group, or "max": no limit
        return None
    # Cached files count as used but give way.
    cached = pathlib.Path("/sys/fs/cgroup/memory.stat").read_text().split()
    return most - used + int(cached[cached.index("file") + 1])


def _address_space():
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    used = _field("/proc/self/status", "VmSize:")
    return None if most == resource.RLIM_INFINITY or used is None else most - used


def _field(path, name):
    """Read a line such as ``MemAvailable:  1234 kB``."""
    try:
        lines = pathlib.Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)
