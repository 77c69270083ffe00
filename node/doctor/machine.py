"""Is the machine in order? Data folder, disk, clock, ports, GPU."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from node.archive import DiskSpace
from node.processes.file_modes import FILES, FOLDERS, UMASK
from node.processes.parts import read_clock, read_parts
from node.run.ports import listeners
from node.settings import WHO_MAY_SEND, Settings, is_loopback
from node.tls.certificates import certificate_expiries
from pipeline.networks.hardware import find_hardware

from .verdict import Checkup, note, ok, wrong

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


def check_data_folder(settings: Settings) -> Iterator[Checkup]:
    """The data folder: there, writable, and closed to other users."""
    folder = settings.data_dir
    if not folder.exists():
        parent = next(path for path in folder.absolute().parents if path.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            yield note("data folder", f"{folder} does not exist yet", "`cmbnode up` creates it")
        else:
            do = f"create it and give it to the user that runs the node (uid {os.geteuid()} runs this command)"
            yield wrong("data folder", f"{folder} does not exist and cannot be created in {parent}", do)
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        yield wrong("data folder", f"{folder} cannot be written", "run the node as the owner of its data")
        return
    found = [folder, *(folder / name for name in FOLDERS), *(path for one in FILES for path in folder.glob(one))]
    facts = [(path, path.stat()) for path in found if path.exists()]
    others = [path for path, fact in facts if fact.st_uid != os.geteuid()]
    open_ = [path for path, fact in facts if stat.S_IMODE(fact.st_mode) & UMASK]
    if others:
        yield wrong("data folder", f"{others[0]} belongs to another user", f"chown -R {os.geteuid()} {folder}")
    elif open_:
        yield note("data folder", f"{open_[0]} can be read by other users", "`cmbnode up` corrects it")
    else:
        yield ok("data folder", f"{folder}, closed to other users")


def check_disk(settings: Settings) -> Iterator[Checkup]:
    """Free space and free inodes in the data folder."""
    folder = next(path for path in (settings.data_dir, *settings.data_dir.absolute().parents) if path.exists())
    disk = DiskSpace.of(folder, settings.archive.free_disk_mb)
    facts = os.statvfs(folder)
    if disk.refuses:
        do = "free some space, shorten archive.keep_days, or lower archive.free_disk_mb"
        yield wrong("disk", str(disk), do)
    elif facts.f_files and facts.f_favail < facts.f_files // 100:
        yield wrong("disk", f"{facts.f_favail} inodes free, less than 1 %", "remove files, or use a larger file system")
    elif disk.fills_up:
        yield note("disk", str(disk), "free some space")
    else:
        yield ok("disk", str(disk))


def check_clock(settings: Settings) -> Iterator[Checkup]:
    """Whether the clock is kept right, and whether it jumped."""
    report = read_clock(settings.data_dir)
    if report is not None and report.untrusted_s:
        hours = f"{report.untrusted_s / 3600:.1f}"
        what = f"it jumped; no expired data is deleted for another {hours} hours"
        yield note("clock", what, "make sure that NTP sets it")
        return
    synchronised = _synchronised()
    if synchronised == "no":
        yield note("clock", "it is not synchronised", "switch on NTP: timedatectl set-ntp true")
    else:
        yield ok("clock", "synchronised" if synchronised == "yes" else "it did not jump")


def _synchronised() -> str:
    """What systemd says: yes, no, or nothing where it is not there."""
    try:
        command = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def check_ports(settings: Settings) -> Iterator[Checkup]:
    """Whether the receiver and the worklist can listen, or already do."""
    running = {life.part for life in read_parts(settings.data_dir) if life.works}
    for one in listeners(settings):
        subject, address = f"port of the {one.table}", f"{one.host}:{one.port}"
        obstacle = one.obstacle()
        if obstacle is not None and obstacle.in_use and one.part in running:
            yield ok(subject, f"{address}: the running node listens")
        elif obstacle is not None:
            yield wrong(subject, obstacle.why, one.advice(obstacle))
        elif one.part == "receiver" and is_loopback(one.host):
            yield note(subject, f"{address} is free, but only this machine can send", WHO_MAY_SEND)
        else:
            yield ok(subject, f"{address} is free")


def check_certificates(settings: Settings) -> Iterator[Checkup]:
    """When the certificates of the settings expire."""
    for one in certificate_expiries(settings):
        subject, now = f"certificate {one.setting}", datetime.now(UTC)
        if one.expires_at is None or one.expires_at <= now:
            yield wrong(subject, one.notice(now))
        elif told := one.notice(now):
            yield note(subject, told)
        else:
            yield ok(subject, f"valid until {one.expires_at:%Y-%m-%d}")


def check_gpu(settings: Settings) -> Iterator[Checkup]:
    """Which device the networks run on."""
    found, driver = find_hardware(), _driver()
    if settings.device == "cpu":
        yield ok("GPU", 'not used (device = "cpu")')
    elif found.gpu:
        yield ok("GPU", found.gpu + (f", driver {driver}" if driver else ""))
    elif driver:
        build = f"PyTorch {found.pytorch}" + ("" if found.has_cuda else ", a build for the CPU")
        report = wrong if settings.device == "cuda" else note
        yield report(
            "GPU",
            f"there is an NVIDIA driver ({driver}), but PyTorch cannot use it ({build})",
            'install a PyTorch build for this driver, or set device = "cpu"',
        )
    elif settings.device == "cuda":
        yield wrong("GPU", 'device = "cuda", but there is no GPU', 'install its driver, or set device = "auto"')
    else:
        yield ok("GPU", f"none; networks run on the CPU ({found.cpu})")


def _driver() -> str:
    """Version of the NVIDIA driver in the kernel; empty if there is none."""
    try:
        words = NVIDIA_DRIVER.read_text().split()
    except OSError:
        return ""
    return next((word for word in words if word[0].isdigit() and "." in word), "unknown")
