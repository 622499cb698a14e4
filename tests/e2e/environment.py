"""Python environments of their own for programs from PyPI, pinned, kept in the cache."""
import os
import shutil
import subprocess
import sys

from worker import CACHE, skip


def python(name, *installs):
    """The interpreter of environment `name`, made by one `pip install` for each list of arguments."""
    folder = os.path.join(CACHE, "venv-" + name)
    stamp, wanted = os.path.join(folder, "stamp"), "\n".join(a for arguments in installs for a in arguments if a[0] != "-")
    binary = os.path.join(folder, "bin", "python")
    if os.path.exists(stamp) and open(stamp).read() == wanted:
        return binary
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    for arguments in installs:
        done = subprocess.run([binary, "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments],
                              capture_output=True, text=True)
        if "(from versions: none)" in done.stderr:  # what pip says of a package that it knows when it reaches no registry
            skip(f"PyPI cannot be reached for {name}: " + done.stderr.strip().splitlines()[-1])
        assert done.returncode == 0, f"{name} did not install:\n{done.stderr}"
    with open(stamp, "w") as f:
        f.write(wanted)
    return binary


def again_in(binary):
    """Runs the program that was started once more, under this interpreter, and ends with what that one ends with."""
    if os.path.realpath(sys.prefix) != os.path.realpath(os.path.dirname(os.path.dirname(binary))):
        sys.exit(subprocess.run([binary, *sys.argv]).returncode)
