"""Hooks on files: arguments in, `Details` with path, access and the other path of a rename or link out.

Functions come without `security_`: the kprobe security_path_rename and the LSM hook path_rename are one place.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from keytrail.decode.arguments import PATHS, Arguments, first, numbers, sorted_out
from keytrail.decode.processes import Redact
from keytrail.domain.event import Details, EventKind, FileAccess, Operation

ACCESS = {
    "file_open": "open",
    "openat": "open",
    "open": "open",
    "openat2": "open",
    "do_sys_openat2": "open",
    "file_permission": "open",
    "path_truncate": "truncate",
    "truncate": "truncate",
    "ftruncate": "truncate",
    "chmod_common": "chmod",
    "path_chmod": "chmod",
    "chmod": "chmod",
    "fchmod": "chmod",
    "fchmodat": "chmod",
    "chown_common": "chown",
    "path_chown": "chown",
    "path_rename": "rename",
    "path_link": "link",
    "path_symlink": "symlink",
    "path_unlink": "unlink",
    "inode_setattr": "times",
    "vfs_utimes": "times",
    "inode_setxattr": "xattr",
    "setxattr": "xattr",
    "lsetxattr": "xattr",
    "fsetxattr": "xattr",
    "mmap_file": "map",
    "kernel_read_file": "read",
}
"""Hooked function to what it does to a file. file_permission and inode_setattr say so in an argument."""

_MAY_EXEC, _MAY_WRITE, _MAY_READ, _MAY_APPEND = 1, 2, 4, 8
"""Mask of security_file_permission (include/linux/fs.h)."""
_IA_VALID_MODE, _IA_VALID_OWNER, _IA_VALID_SIZE = 1, 6, 8
"""ATTR_MODE, ATTR_UID|ATTR_GID and ATTR_SIZE of security_inode_setattr's ia_valid (include/linux/fs.h)."""
_MODE_BITS = 0o7777
_WITH_TEXT = ("symlink", "xattr")
_ALONE = frozenset({"read", "write", "exec", "open"})
"""Accesses that nothing but the first path is about."""

_KERNEL_READ_MODULE = 2
"""READING_MODULE of the kernel's enum kernel_read_file_id."""

_BPF_MOUNT = "/sys/fs/bpf"
_MEMORY = re.compile(r"/proc/\d+/(?:task/\d+/)?mem", re.ASCII)
_PID_DIGITS = 10
_SHARED_OBJECT = re.compile(r"\.so(?:\.[^/]*)?\Z")


# Named once: before Python 3.12 a member of an enum costs four times as much as a global.
_BPF, _FILE, _TRACE = EventKind.BPF, EventKind.FILE, EventKind.TRACE


def touched_kind(_message: Any, args: Callable[[], Arguments]) -> EventKind:
    """Tell bpffs and other processes' memory, which the kernel shows as files, from files."""
    path = _named(args())
    if path == _BPF_MOUNT or path.startswith(_BPF_MOUNT + "/"):
        return _BPF
    return _TRACE if path.startswith("/proc/") and _MEMORY.fullmatch(path) else _FILE


def mapped_kind(message: Any, args: Callable[[], Arguments]) -> EventKind:
    """A mapped shared object is a library load."""
    kind = touched_kind(message, args)
    return EventKind.LIBRARY if kind is _FILE and _SHARED_OBJECT.search(_named(args())) else kind


def kernel_read_kind(_message: Any, args: Callable[[], Arguments]) -> EventKind:
    """The kernel reads modules this way, and firmware, certificates, kexec images."""
    return EventKind.MODULE if first(numbers(args()), 0) == _KERNEL_READ_MODULE else EventKind.FILE


def _named(args: Arguments) -> str:
    """First path, else first text: asked of each file event before anybody wants its details."""
    text: str | None = None
    for which, value in args:
        if which in PATHS:
            return value.path or "/"
        if which == "string_arg" and text is None:
            text = value
    return text or ""


def file(name: str, args: Arguments, redact: Redact) -> Details:
    """Read a file, what was done to it, and the other path of a rename or link."""
    ints, named, names = sorted_out(args)
    access = access_of(name, ints)
    path, target = (named[0], "") if access in _ALONE and named else _subjects(access, named, names)
    mode = None
    if access == "chmod" and name != "inode_setattr":  # which has no mode among its numbers
        mode = first(ints[-1:], None)
    shown = redact(path)[0]
    if mode is None and not target:
        return _plain(shown, access)
    found = FileAccess(shown, access, mode if mode is None else mode & _MODE_BITS, redact(target)[0] if target else "")
    return Details(None, found, None, _of_process(found))


@lru_cache(maxsize=1_024)  # of at most a path's 4 KiB each, redacted; a node's programs open the same files all day
def _plain(path: str, access: str) -> Details:
    """Details of an access that only a path is known of, shared by all who do the same."""
    found = FileAccess(path, access)
    return Details(None, found, None, _of_process(found))


def _of_process(found: FileAccess) -> Operation | None:
    """Whose file below /proc it is: a rule must tell one's own from another's. As the reader's /proc numbers them."""
    pid = pid_below_proc(found.path)
    return None if pid is None else Operation(found.access, target_pid=pid)


def pid_below_proc(path: str) -> int | None:
    """Return the process that a path below /proc belongs to. Where no procfs is mounted, names may be of any digits."""
    if not path.startswith("/proc/"):
        return None
    pid = path[len("/proc/") :].partition("/")[0]
    return int(pid) if len(pid) <= _PID_DIGITS and pid.isascii() and pid.isdigit() else None


def access_of(name: str, ints: list[int]) -> str:
    """Say what the function did to the file, by its name or by what its argument says."""
    flags = first(ints, 0)
    if name == "file_permission":
        if flags & (_MAY_WRITE | _MAY_APPEND):
            return "write"
        return "read" if flags & _MAY_READ else "exec" if flags & _MAY_EXEC else "open"
    if name == "inode_setattr":
        if flags & _IA_VALID_MODE:
            return "chmod"
        return "chown" if flags & _IA_VALID_OWNER else "truncate" if flags & _IA_VALID_SIZE else "times"
    return ACCESS.get(name, "open")


def _subjects(access: str, named: list[str], names: list[str]) -> tuple[str, str]:
    """Path and other path, in the order in which the kernel's functions have them."""
    match access, named:
        case "rename", [old_dir, old, new_dir, new, *_]:
            return _within(old_dir, old), _within(new_dir, new)
        case "rename", [old, *_, new]:
            return old, new
        case "link", [old, new_dir, new]:
            return old, _within(new_dir, new)
        case "link", [old, *_, new]:
            return old, new
        case (("symlink" | "unlink"), [directory, entry]):
            named = [_within(directory, entry)]
        case "xattr", []:
            # fsetxattr names no file, only a descriptor: then the attribute's name is the only text.
            return first(names[:-1], ""), first(names[-1:], "")
    # The target of a symlink and the name of an attribute are texts beside the path.
    return first(named or names, ""), first(names, "") if access in _WITH_TEXT else ""


def _within(directory: str, entry: str) -> str:
    """Path of an entry: the directory's is complete, the entry's lacks what its file system is mounted on."""
    if entry.startswith(directory.rstrip("/") + "/"):
        return entry
    return f"{directory.rstrip('/')}/{entry.rpartition('/')[2]}"
