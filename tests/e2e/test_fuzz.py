"""Whatever is typed or written into tuner.toml: a sentence and an exit code, and no password."""

import json
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.bad_input import GOOD, Case, in_process
from tuner.flags import SETTINGS

CASES = 60
SECRET = "s3cr3t"
CODES = {0, 2, 3, 4, 5}


def as_toml(value: object) -> str:
    """A value as TOML writes it."""
    return str(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", " ", "0", "-1", "1e309", "nan", "x" * 3000, "\udcff", "\x1b[31m", "a\nb",
                     "../..", "~nobody/x", "[bold]", "%s{}", "good.py", "--", "true"]),
)  # fmt: skip
# A URL with a password, and everything that can be wrong in one.
URLS = st.builds(
    "{}{}{}:{}{}@{}/{}".format,
    st.sampled_from(["postgresql", "mysql", "sqlite", "oracle", "postgresql+psycopg2", "http", ""]),
    st.sampled_from(["://", ":/", "//", ":", "", ":///", "//:"]),
    st.sampled_from(["me", "", "m e", "me@x"]),
    st.just(SECRET),
    st.sampled_from(["", "@", "{}", "%", "%zz", "/", ":", "?", "#", " ", "'", '"', "\\"]),
    st.sampled_from(["127.0.0.1:1", "127.0.0.1:x", "[", "", "127.0.0.1:99999"]),
    st.sampled_from(["db", "", "db?x=1", "db?sslmode=never"]),
)
STORAGES = st.one_of(
    URLS,
    st.sampled_from(["sqlite:///x.db", "sqlite:////", "sqlite://", "sqlite:///no/x.db",
                     f"postgresql://127.0.0.1:1/x?password={SECRET}"]),
)  # fmt: skip
NUMBERS = st.one_of(st.integers(-2, 9), st.floats(0.001, 9), st.floats(), st.integers(2**40))
# Each worker process takes a second to start: they are wrong, or none.
VALUES = {
    "workers": st.one_of(TEXTS.filter(lambda text: not text.strip().isdigit()), st.just("0")),
    "storage": STORAGES,
    "seed": st.one_of(st.integers(0, 9), NUMBERS),
    "max-failures": st.one_of(st.integers(0, 9), NUMBERS),
    "sampler": st.sampled_from(["tpe", "random", "grid", "tp", "gp", "qmc"]),
    "pruner": st.sampled_from(["asha", "none", "hyperband", "ahsa"]),
    "precision": st.sampled_from(["auto", "float32", "half"]),
    "artifacts": st.sampled_from(["a", "good.py", "s3://", "gs://b"]),
    "cache-dir": st.sampled_from(["c", "good.py"]),
    "quiet": st.sampled_from([True, False, "yes", "maybe"]),
    "no-publish": st.sampled_from([True, False, "yes", "maybe"]),
    "format": st.sampled_from(["table", "xml"]),
}


def values_of(name: str) -> st.SearchStrategy[object]:
    """What may be given for a setting: four times of five what somebody could mean."""
    likely: st.SearchStrategy[object] = VALUES.get(name, NUMBERS)
    unlikely = TEXTS if name == "workers" else st.one_of(NUMBERS, TEXTS, URLS)
    if name == "workers":
        return likely
    return st.integers(0, 4).flatmap(lambda dice: likely if dice else unlikely)


FLAGS = st.one_of(
    *(
        st.tuples(st.just(f"--{name}"), values_of(name).map(str))
        for name, setting in SETTINGS.items()
        if setting.metavar is not None and name != "format"
    ),
    st.tuples(st.sampled_from(["--quiet", "-v", "--quiet", "--trails", "--detahc", "--help"])),
    st.tuples(st.sampled_from(["--study", "--study-name", "--trials", "--n-trials"]), TEXTS),
    st.tuples(st.one_of(TEXTS, URLS)),
)
LINES = st.fixed_dictionaries(
    {}, optional={name: values_of(name) for name in SETTINGS if name != "workers"}
).map(lambda keys: dict(list(keys.items())[:2]))
BROKEN_LINES = st.one_of(
    st.builds("{} = {}".format, TEXTS, NUMBERS.map(as_toml)),
    st.builds('storage = "{}'.format, URLS),
    TEXTS,
)


@settings(
    max_examples=CASES, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
@given(
    flags=st.lists(FLAGS, max_size=3),
    lines=LINES,
    broken=st.integers(0, 7).flatmap(lambda dice: st.just("") if dice else BROKEN_LINES),
)
def test_no_traceback_and_no_password(
    flags: list[tuple[str, ...]], lines: dict[str, object], broken: str
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    try:
        (folder / "good.py").write_text(GOOD)
        text = "\n".join([*(f"{key} = {as_toml(it)}" for key, it in lines.items()), broken])
        (folder / "tuner.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
        arguments = ["--study", "good.py", "--trials", "1", "--workers", "0"]
        arguments += [word for flag in flags for word in flag]
        code, out, err = in_process(Case("", (), 0, ""), arguments, folder)
    finally:
        shutil.rmtree(folder)
    assert code in CODES, err
    assert SECRET not in out + err
    assert "Traceback" not in out + err
    sentences = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(sentences) == (code != 0), err
