# What every attack begins with. An attack prints one line for each attempt that got further than it may, and exits
# with 1; it says at the end how many attempts it made.
import ctypes, errno, os, sys

libc = ctypes.CDLL(None, use_errno=True)
tries = leaks = 0


def raw(number, *args):
    """A system call by number; raises like the functions of os."""
    as_long = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    result = libc.syscall(ctypes.c_long(number), *as_long)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def refused(what, names, attempt):
    """Makes an attempt that must fail with one of the errors in `names`."""
    global tries, leaks
    tries += 1
    try:
        got = attempt()
    except OSError as error:
        name = errno.errorcode.get(error.errno, str(error.errno))
        if name not in names.split():
            leaks += 1
            print(f"{what}: {name}, not {names}")
        return
    leaks += 1
    print(f"{what}: it worked: {got!r}")


def holds(what, is_so):
    """Says that something must be so."""
    global tries, leaks
    tries += 1
    if not is_so:
        leaks += 1
        print(f"{what}: not so")


def done():
    print(f"tries {tries}")
    sys.stdout.flush()
    os._exit(1 if leaks or not tries else 0)


def text(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, content=b"x"):
    with open(path, "wb") as file:
        file.write(content)
