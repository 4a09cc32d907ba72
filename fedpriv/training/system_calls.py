"""A filter of system calls (seccomp): a job is one process, opens no socket, runs no program, and lets the kernel be.

Training needs none of the calls that are refused here. The filter is the kernel's own (seccomp(2)); once it is set, the
process and all its threads keep it. It needs no privilege.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from collections.abc import Iterator

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _ALL_THREADS = 1, 1
_CLONE_THREAD = 0x10000
_X32 = 0x40000000
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # where they lie in the kernel's struct seccomp_data

_MACHINES = ("x86_64", "aarch64")
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
_REFUSED: dict[str, tuple[int | None, int | None]] = {  # numbers on x86-64 and on 64-bit ARM
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "socket": (41, 198),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "syslog": (103, 116),
}


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("value", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def can_filter() -> bool:
    """Say whether this machine's system calls can be filtered: Linux on x86-64 or 64-bit ARM."""
    return sys.platform == "linux" and platform.machine() in _MACHINES and sys.maxsize > 2**32


def filter_system_calls() -> bool:
    """Refuse, from now on and for good, what training never needs: it fails with "Operation not permitted".

    It holds for every thread of this process, those that run already too. What is open stays open, sockets as well.

    Returns
    -------
    bool
        False where there is no filter for this machine; then nothing was changed.

    Raises
    ------
    OSError
        If the kernel refuses the filter; the process must not go on then.
    """
    if not can_filter():
        return False
    instructions = list(_program(platform.machine()))
    array = (_Instruction * len(instructions))(*instructions)
    program = _Program(len(instructions), array)
    libc = ctypes.CDLL(None, use_errno=True)
    call = _SECCOMP[platform.machine()]
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")
    failed = libc.syscall(call, _SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(program))
    if failed != 0:  # above 0 it is the number of a thread that has another filter
        number = ctypes.get_errno() if failed < 0 else errno.ESRCH
        raise OSError(number, f"seccomp: {os.strerror(number)}")
    return True


def _program(machine: str) -> Iterator[_Instruction]:
    """Yield the filter: jumps go over the next instruction, so that each pair reads as "if it is so, return that"."""
    refuse, unknown = _REFUSE | errno.EPERM, _REFUSE | errno.ENOSYS
    yield _Instruction(_LOAD, 0, 0, _ARCHITECTURE)
    yield _Instruction(_EQUAL, 1, 0, _AUDIT[machine])
    yield _Instruction(_RETURN, 0, 0, _KILL)
    yield _Instruction(_LOAD, 0, 0, _NUMBER)
    yield from _if(_AT_LEAST, _X32, refuse)  # the other numbering of x86-64
    for numbers in _REFUSED.values():
        number = numbers[_MACHINES.index(machine)]
        if number is not None:
            yield from _if(_EQUAL, number, refuse)
    yield from _if(_EQUAL, _CLONE3, unknown)  # its flags lie in memory, where a filter cannot look: libc takes clone
    yield _Instruction(_EQUAL, 1, 0, _CLONE[machine])
    yield _Instruction(_RETURN, 0, 0, _ALLOW)
    yield _Instruction(_LOAD, 0, 0, _FIRST_ARGUMENT)
    yield from _if(_ANY_BIT, _CLONE_THREAD, _ALLOW)
    yield _Instruction(_RETURN, 0, 0, refuse)


def _if(test: int, value: int, answer: int) -> tuple[_Instruction, _Instruction]:
    return _Instruction(test, 0, 1, value), _Instruction(_RETURN, 0, 0, answer)
