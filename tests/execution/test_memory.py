"""What is free is what the machine has, or less where a control group allows less."""

from __future__ import annotations

import pytest

from bequest.execution import memory

MIB = 2**20


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Writes files of a system that takes the place of this one."""
    monkeypatch.setattr(memory, "ROOT", tmp_path)

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    write("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable: 8000 kB")
    return write


V1, V2 = "sys/fs/cgroup/memory/a/memory.", "sys/fs/cgroup/memory."


def test_without_groups_it_is_what_the_machine_has_available(system):
    assert memory.free_memory() == 8000 * 1024


def test_a_group_of_version_2_counts_file_pages_as_free(system):
    system("proc/self/cgroup", "0::/a/b")
    system(V2 + "max", 4 * MIB)
    system(V2 + "current", 3 * MIB)
    assert memory.free_memory() == 1 * MIB
    system(V2 + "stat", f"anon 5\ninactive_file {MIB}")
    assert memory.free_memory() == 2 * MIB
    system(V2 + "max", "max")
    assert memory.free_memory() == 8000 * 1024


def test_a_group_of_version_1_that_is_full_leaves_nothing(system):
    system("proc/self/cgroup", "5:cpu:/\n4:memory:/a/b\n0::/")
    system(V1 + "limit_in_bytes", MIB)
    system(V1 + "usage_in_bytes", 2 * MIB)
    assert memory.free_memory() == 0


def test_a_system_that_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "ROOT", tmp_path)
    assert memory.free_memory() is None
