"""Settings, URLs, words, machine and seeds."""

from pathlib import Path
from typing import Any

import pytest

from tuner import environment, machine, seeds, settings, wording
from tuner.errors import UsageError
from tuner.flags import Given, Source
from tuner.storage.urls import resolve
from tuner.wording import redact, redact_value

VALUES: dict[str, Any] = {
    "study": "s.py", "study_name": None, "trials": 20, "workers": None, "storage": None,
    "seed": None, "sampler": None, "pruner": None, "precision": None, "timeout": None,
    "max_failures": None, "trial_timeout": None, "artifacts": None, "cache_dir": None,
    "cache_gb": None, "compare": None, "from_study": None, "detach": False, "quiet": False,
    "no_publish": False, "verbose": False, "engine": None, "ray_address": None,
    "cpus_per_worker": None, "gpus_per_worker": None,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    (tmp_path / "s.py").write_text("")


def resolved(**values: Any) -> settings.RunSettings:
    sources = dict.fromkeys(values, Source.FLAG)
    return settings.resolve_run(Given({**VALUES, **values}, sources))


def test_defaults(tmp_path: Path) -> None:
    found = resolved()
    assert (found.study, found.storage) == ("s", "sqlite:///tuner.db")
    assert (found.sampler, found.pruner) == ("tpe", "asha")
    assert (found.precision, found.cache_gb) == ("auto", 5.0)
    assert found.cache_dir == tmp_path / "user-cache" / "tuner"
    assert found.workers == machine.default_workers()


def test_folders_are_absolute_and_a_home_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert resolved().artifacts == str(tmp_path / "tuner-artifacts")
    assert resolved(artifacts="here").artifacts == str(tmp_path / "here")
    assert resolved(cache_dir="~/cache").cache_dir == tmp_path / "home" / "cache"
    with pytest.raises(UsageError, match=r"--artifacts is 's\.py', which is no folder"):
        resolved(artifacts="s.py")


def test_a_bucket_is_named_by_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    for given in ("s3://bucket", "s3://my.bucket-1/a/b=c/d_e", "s3://bucket/a/"):
        assert resolved(artifacts=given).artifacts == given.rstrip("/")
    for wrong, words in (
        ("file:///tmp/x", "in a folder or a bucket; name a folder, or s3://BUCKET"),
        ("gs://bucket/x", "in a folder or a bucket"),
        ("S3://bucket", "in a folder or a bucket"),
        ("s3://", "which names no bucket; write s3://BUCKET or s3://BUCKET/PREFIX with letters"),
        ("s3://bucket//x", "which names no bucket"),
        ("s3://bucket/a?b", "which names no bucket"),
        ("s3://bucket/ä", "which names no bucket"),
        ("s3://bucket/" + "x/" * 500, "which names no bucket"),
        ("s3://me:s3cr3t@bucket", r"is 's3://me:\*\*\*@bucket', which names no bucket"),
    ):
        with pytest.raises(UsageError, match=words):
            resolved(artifacts=wrong)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs the package boto3; .* 'tuner\[s3\]', or name a"):
        resolved(artifacts="s3://bucket")


def test_what_finetune_reads_from_its_environment(tmp_path: Path) -> None:
    found = resolved(precision="float32", cache_dir="c", cache_gb=0.25)
    assert found.variables() == {
        "TUNER_PRECISION": "float32",
        "TUNER_CACHE_DIR": str(tmp_path / "c"),
        "TUNER_CACHE_GB": "0.25",
    }


def test_a_time_limit_for_trials_needs_processes() -> None:
    assert resolved(trial_timeout=3.0).trial_timeout == 3.0
    with pytest.raises(UsageError, match="--trial-timeout 3 needs worker processes"):
        resolved(trial_timeout=3.0, workers=0)
    values = {**VALUES, "trial_timeout": 3.0, "workers": 0}
    from_file = Given(values, {"trial_timeout": Source.FILE, "workers": Source.FLAG})
    assert settings.resolve_run(from_file).trial_timeout is None


def test_no_more_workers_than_trials() -> None:
    assert resolved(workers=8, trials=3).workers == 3
    assert resolved(workers=0).workers == 0


@pytest.mark.parametrize(("trials", "allowed"), [(1, 5), (50, 5), (100, 10), (1000, 100)])
def test_allowed_failures_grow_with_the_target(trials: int, allowed: int) -> None:
    assert resolved(trials=trials).max_failures == allowed
    assert resolved(trials=trials, max_failures=0).max_failures == 0


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"sampler": "tp"}, "--sampler is 'tp', and there is no such sampler; did you mean 'tpe'?"),
        ({"pruner": "medain"}, "there is no such pruner; did you mean 'median'?"),
        ({"study": "t.py"}, "There is no study file t.py"),
        ({"study_name": "n" * 600}, "has 600 characters"),
        ({"engine": "ray"}, "--engine is ray, and how many workers it shall place is not said"),
        ({"engine": "ray", "workers": 0}, "add --workers W, from 1"),
        ({"gpus_per_worker": 1.0}, "--gpus-per-worker is for --engine ray"),
        ({"engine": "local", "ray_address": "auto"}, "--ray-address is for --engine ray"),
        (
            {"engine": "ray", "workers": 2, "gpus_per_worker": 1.5},
            "--gpus-per-worker is 1.5, and Ray gives a part of one GPU or whole ones",
        ),
        (
            {"engine": "ray", "workers": 2, "cpus_per_worker": 1e-5},
            "--cpus-per-worker is 1e-05, and Ray counts no finer than 0.0001",
        ),
        (
            {"engine": "ray", "workers": 2, "storage": "postgresql://me:s3cr3t@db/x"},
            "--storage has a password in it, and Ray shows the command line on its dashboard",
        ),
    ],
)
def test_wrong_settings_get_a_sentence(values: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolved(**values)
    assert says in str(caught.value)


def test_settings_show_no_password() -> None:
    assert "secret" not in repr(resolved(storage="postgresql://me:secret@host/db"))


@pytest.mark.parametrize(
    ("text", "driver"),
    [
        ("sqlite:///a.db", "sqlite"),
        ("postgresql://u@h/d", "postgresql+psycopg"),
        ("postgres://u@h/d", "postgresql+psycopg"),
        ("mysql://u@h/d", "mysql+pymysql"),
        ("mariadb://u@h/d", "mysql+pymysql"),
    ],
)
def test_urls_get_their_driver(text: str, driver: str) -> None:
    assert resolve(text).drivername == driver


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tuner.db",
        "oracle://u:secret@h/d",
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql+psycopg2://u:secret@h/d",
    ],
)
def test_wrong_urls_get_a_sentence_without_the_password(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:secret@host/db",
        "bad postgresql://me:secret@host:1/db and more",
        "mysql+pymysql://:secret@host/db",
        "postgresql://me:se@cret@host/db",
    ],
)
def test_passwords_are_redacted(text: str) -> None:
    for hide in (redact, redact_value):
        shown = hide(text)
        assert "secret" not in shown
        assert "cret" not in shown
        assert "***@host" in shown


@pytest.mark.parametrize(
    "sentence",
    [
        "mysql://root@h/test: (1045, 'Access denied for user root@h (using password: YES)')",
        "KeyError: http://localhost:8080/data not found, ask admin@example.org",
        "line 3: SyntaxError: bad:@decorator, loss:0.3@step4",
        "The storage 'x' is not a database URL; write for example postgresql://user@host/database.",
    ],
)
def test_sentences_without_a_password_stay_as_they_are(sentence: str) -> None:
    assert redact(sentence) == sentence


def test_the_rest_of_a_sentence_with_a_password_stays() -> None:
    denied = "cannot be used: Access denied for user 'root'@'127.0.0.1' (using password: YES)"
    said = redact(f"The database mysql+pymysql://root:s3cr3t@127.0.0.1/test {denied}.")
    assert said == f"The database mysql+pymysql://root:***@127.0.0.1/test {denied}."


@pytest.mark.parametrize(
    "value",
    ["postgresql//me:s3cr3t@h", "postgresql:/me:s3 cr3t@h", "postgresql:///me:s3cr3t@h/d",
     "//:s3cr3t@h", "postgresql://me:s3cr3t", "'postgresql://me:s3'cr3t@h'", "me:s3cr3t@h",
     "mysql://h/d?password=s3'cr3t&x=1"],
)  # fmt: skip
def test_a_value_with_slips_shows_no_password(value: str) -> None:
    shown = redact_value(value)
    assert "s3" not in shown
    assert "cr3t" not in shown


@pytest.mark.parametrize(
    "value", ["postgresql://me@host:5432/db", "sqlite:///tuner.db", "'postgresql://host:5432'"]
)
def test_a_value_without_a_password_stays_as_it_is(value: str) -> None:
    assert redact_value(value) == value


@pytest.mark.timeout(60)  # with an expression that goes back again and again: minutes
def test_redacting_long_texts_ends() -> None:
    for piece in ("a: ", "k: 1, ", "://x:", "a:", "x", "'"):
        redact(f"'{piece * 60_000}")


def test_last_words_are_bounded() -> None:
    words = wording.last_words(["first", "", "  x" * 100_000, "ValueError: no"])
    assert words.endswith("... | ValueError: no")
    assert len(words) < 300
    assert wording.last_words([]) == "nothing"


def test_passwords_in_options_are_redacted() -> None:
    for option in ("password", "passwd", "sslpassword"):
        shown = redact(f"postgresql://host/db?user=me&{option}=secret&x=1")
        assert shown == f"postgresql://host/db?user=me&{option}=***&x=1"


def test_an_at_sign_in_a_password_must_be_escaped() -> None:
    with pytest.raises(UsageError, match="%40") as caught:
        resolve("mysql://me:p@secret@host/db")
    assert "secret" not in str(caught.value)


def test_words() -> None:
    assert [wording.duration(s) for s in (0.4, 59.4, 125, 11_400)] == [
        "0 s",
        "59 s",
        "2 min 05 s",
        "3 h 10 min",
    ]
    assert (
        wording.params({"rate": 0.00123456, "kind": "adam", "n": 3})
        == "rate=0.001235 kind=adam n=3"
    )
    assert (wording.count(1, "trial"), wording.count(2000, "trial")) == ("1 trial", "2,000 trials")


def test_cores_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "count_cores", lambda: 8)
    assert [machine.threads_per_worker(w) for w in (0, 1, 3, 8, 16)] == [8, 8, 2, 1, 1]
    monkeypatch.setattr(machine, "memory_bytes", lambda: 5e9)
    assert machine.default_workers() == 3
    monkeypatch.setattr(machine, "memory_bytes", lambda: 1e9)
    assert machine.default_workers() == 1


def test_ray_address_names_a_cluster_where_no_flag_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://far:1")
    for flag in (None, "auto"):
        found = resolved(engine="ray", workers=1, ray_address=flag).ray
        assert found is not None
        assert found.named == "RAY_ADDRESS ray://far:1"
        assert found.is_remote
    found = resolved(engine="ray", workers=1, ray_address="local").ray
    assert found is not None
    assert (found.address, found.named) == ("local", "--ray-address local")


def test_a_worker_of_ray_has_the_threads_and_gpus_of_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert resolved().ray is None
    found = resolved(engine="ray", workers=3)
    assert found.ray == settings.RayPlace("auto", "--ray-address auto", 1.0, 0.0)
    variables = found.worker_variables()
    assert (variables["TUNER_THREADS"], variables["CUDA_VISIBLE_DEVICES"]) == ("1", "")
    assert "TUNER_CACHE_DIR" not in variables  # of this machine's home
    found = resolved(
        engine="ray", workers=3, ray_address="ray://h:1", cpus_per_worker=4.0, gpus_per_worker=0.5,
        cache_dir="c",
    )  # fmt: skip
    assert found.ray == settings.RayPlace("ray://h:1", "--ray-address ray://h:1", 4.0, 0.5)
    assert found.ray.is_remote
    variables = found.worker_variables()
    assert (variables["TUNER_THREADS"], variables["TUNER_CACHE_DIR"]) == ("4", str(tmp_path / "c"))
    assert "CUDA_VISIBLE_DEVICES" not in variables  # Ray sets it


def test_without_ray_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs the package ray; .* pip install 'tuner\[ray\]'"):
        resolved(engine="ray", workers=1)


def test_workers_take_the_visible_gpus_in_turn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def of_five() -> list[str]:
        found = (machine.gpu_variables(number, 5) for number in range(1, 6))
        return [it.get("CUDA_VISIBLE_DEVICES", "as it is") for it in found]

    monkeypatch.setattr(machine, "_DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert of_five() == ["as it is"] * 5
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert of_five() == ["0", "1", "0", "1", "0"]
    assert machine.gpu_variables(1, 1) == {}  # one alone keeps them all
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-8932f937,5")
    assert of_five() == ["3", "GPU-8932f937", "5", "3", "GPU-8932f937"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,-1,3")  # CUDA reads no further than -1
    assert of_five() == ["2"] * 5
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert of_five() == ["as it is"] * 5


def test_a_containers_limits_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(16)))
    assert machine.count_cores() == 16
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert machine.count_cores() == 2
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.count_cores() == 16
    (tmp_path / "memory.max").write_text("1000000\n")
    assert machine.memory_bytes() == 1_000_000
    (tmp_path / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert machine.oom_kills() == 2


def test_seeds_differ_by_study_number_and_stream() -> None:
    found = [
        f(s, n) for f in (seeds.trial_seed, seeds.sampler_seed) for s in range(5) for n in range(50)
    ]
    assert len(set(found)) == len(found)
    assert all(0 <= seed < seeds.SEED_LIMIT for seed in found)
    assert seeds.trial_seed(1, 2) == 1596810411  # kept: another value would change every study


def test_the_environment_is_the_same_twice_and_has_a_name() -> None:
    one, two = environment.describe(), environment.describe()
    assert environment.digest(one) == environment.digest(two)
    assert one["optuna"].startswith("5.0")  # type: ignore[union-attr]
    assert environment.digest({**one, "cpu": "another"}) != environment.digest(one)
