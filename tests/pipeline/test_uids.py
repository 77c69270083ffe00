"""UIDs and job keys: deterministic, valid, apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from pipeline.uids import derive_uid, job_key

names = st.lists(st.one_of(st.text(max_size=20), st.integers()), max_size=4)
uids = st.lists(st.from_regex(r"1\.2\.[1-9][0-9]{0,8}", fullmatch=True), min_size=1, max_size=8)


@given(st.text(max_size=70), names)
def test_every_derived_uid_is_a_valid_uuid_derived_uid(key: str, path: list[object]) -> None:
    uid = UID(derive_uid(key, *path))
    assert uid.is_valid
    assert uid.startswith("2.25.")
    assert len(uid) <= 64
    assert derive_uid(key, *path) == uid


@given(st.integers(min_value=0, max_value=10_000), st.integers(min_value=0, max_value=10_000))
def test_different_lesions_get_different_uids(one: int, other: int) -> None:
    assert (derive_uid("key", "lesion", one) == derive_uid("key", "lesion", other)) == (one == other)


@given(uids, st.randoms())
def test_a_job_key_ignores_order_and_repetition_of_instances(instances: list[str], random: object) -> None:
    shuffled = [*instances, instances[0]]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert job_key(shuffled, "profile") == job_key(instances, "profile")


@given(uids, st.from_regex(r"1\.3\.[1-9]{3}", fullmatch=True))
def test_one_more_instance_is_another_job(instances: list[str], extra: str) -> None:
    assert job_key([*instances, extra], "profile") != job_key(instances, "profile")


def test_profile_and_settings_are_part_of_the_key() -> None:
    keys = {
        job_key(["1.2"], "a"),
        job_key(["1.2"], "b"),
        job_key(["1.2"], "a", {"phase_sign": 1}),
        job_key(["1.2"], "a", {"phase_sign": -1}),
    }
    assert len(keys) == 4
    assert job_key(["1.2"], "a", {"x": 1, "y": 2}) == job_key(["1.2"], "a", {"y": 2, "x": 1})
