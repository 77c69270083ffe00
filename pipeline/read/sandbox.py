"""How does a process give up what it does not need, before it reads what a stranger sent?

Two layers, neither of which needs root or a container's help:

- resource limits, on every Unix: no new file, socket or pipe, no growing file, no other process (unless it runs as
  root), bounded memory and processor time;
- a system call filter (seccomp, Linux on x86-64 and 64-bit ARM): memory, the pipes that are already open, and its own
  end. Any other call fails with EPERM.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import resource
import struct

MEMORY_BYTES = 8 << 30
"""Address space that the process may have."""

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2  # prctl(2)
_KILL, _ALLOW, _FAIL = 0x8000_0000, 0x7FFF_0000, 0x0005_0000 | errno.EPERM  # seccomp(2)
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF: load a word, jump if equal, return
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4  # in struct seccomp_data

_CALLS: dict[str, tuple[int, tuple[int, ...]]] = {
    "x86_64": (
        0xC000_003E,
        (
            *(0, 1, 3, 5, 8, 19, 20),  # read, write, close, fstat, lseek, readv, writev
            *(9, 10, 11, 25, 12, 28, 202),  # mmap, mprotect, munmap, mremap, brk, madvise, futex
            *(13, 14, 15, 131, 228, 96, 230),  # rt_sigaction, …procmask, …return, sigaltstack, clocks, clock_nanosleep
            *(39, 186, 24, 318, 219, 60, 231),  # getpid, gettid, sched_yield, getrandom, restart, exit
        ),
    ),
    "aarch64": (
        0xC000_00B7,
        (
            *(63, 64, 57, 80, 62, 65, 66),
            *(222, 226, 215, 216, 214, 233, 98),
            *(134, 135, 139, 132, 113, 169, 115),
            *(172, 178, 124, 278, 128, 93, 94),
        ),
    ),
}
"""For each machine its number in <linux/audit.h>, and the numbers of the system calls that are allowed."""


def confine(cpu_s: int) -> bool:
    """Limit this process for good; every module it needs must be loaded already.

    Parameters
    ----------
    cpu_s : int
        Processor time after which the system ends it.

    Returns
    -------
    bool
        Whether the system call filter is in force, and not the resource limits alone.
    """
    limits = {
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_NOFILE: 0,
    }
    for name, most in limits.items():
        resource.setrlimit(name, (most, most))
    return _filter_system_calls()


def _filter_system_calls() -> bool:
    architecture, calls = _CALLS.get(platform.machine(), (0, ()))
    libc = ctypes.CDLL(None, use_errno=True)
    if not calls or not hasattr(libc, "prctl"):
        return False
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        *((_EQUAL, len(calls) - n, 0, number) for n, number in enumerate(calls)),
        (_RETURN, 0, 0, _FAIL),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in program))
    head = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(code)))  # struct sock_fprog
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, head, 0, 0) == 0)
