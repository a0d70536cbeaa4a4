"""What each worker did when: one lane a worker, one bar a trial."""

import heapq
from dataclasses import dataclass

import numpy as np
import pandas as pd
from plotly import graph_objects as go

from tuner import wording
from tuner.report.cards import CannotDraw, Card
from tuner.report.plots import theme, words
from tuner.report.results import ENDED, OUTCOMES, RUNNING, Results

_MOST_BARS = 2_000
_MOST_HATCHED = 300  # bars; more are too narrow for a hatch
_MOST_LANES = 16
_BINS = 60  # of the time, where bars are too many
# A pause is a time without any trial, of at least so many seconds and this share of the whole.
_PAUSE_SECONDS, _PAUSE_SHARE = 60.0, 0.02
_UNITS = ((2 * 86_400.0, 86_400.0, "days"), (2 * 3_600.0, 3_600.0, "hours"),
          (120.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))  # fmt: skip


@dataclass(frozen=True)
class _Drawn:
    trials: pd.DataFrame  # outcome, lane (its place), begin and finish in seconds
    lanes: list[str]
    told: bool  # who ran which trial is known
    span: float  # seconds
    paused: float  # seconds of it without any trial
    pauses: int

    @property
    def busy(self) -> float:
        """The share of the lanes' time without pauses in which a trial ran."""
        length = self.trials["finish"] - self.trials["begin"]
        whole = len(self.lanes) * (self.span - self.paused)
        return min(1.0, float(length.sum()) / whole) if whole > 0 else 1.0


def timeline(results: Results) -> Card:
    """When each trial ran, and on which worker.

    Raises:
        CannotDraw: no trial has a start and an end.
    """
    drawn = _drawn(results)
    unit, word = next((unit, word) for least, unit, word in _UNITS if drawn.span >= least)
    seen = drawn.trials[drawn.trials["lane"] < _MOST_LANES]
    lanes = drawn.lanes[:_MOST_LANES]
    figure = theme.new_figure(height=130 + 34 * len(lanes))
    if len(seen) <= _MOST_BARS:
        for trace in _bars(results, seen, unit):
            figure.add_trace(trace)
        reading = "One lane a worker, one bar a trial; gaps are time in which it ran none."
    else:
        figure.add_trace(_heat(seen, len(lanes), drawn.span, unit))
        reading = "One lane a worker; the brighter, the more of that time it was running trials."
    figure.update_layout(
        barmode="overlay",
        xaxis={"title": {"text": f"{word} since the first start"}, "nticks": 10},
        yaxis=theme.level_axis(lanes),
        legend={"traceorder": "normal"},
    )
    return Card(
        key="timeline",
        title=_finding(drawn),
        reading=reading,
        basis=words.basis_of(results, _treatment(results, drawn)),
        alt=_alt(drawn),
        figure=figure,
        table=_table(drawn),
        narrow={"xaxis.nticks": 5, **theme.NARROW_LEGEND},
        wide=True,
    )


def _drawn(results: Results) -> _Drawn:
    trials = results.trials
    latest = trials[["start", "end"]].max(axis=None)
    ends = trials["end"].where(trials["outcome"] != RUNNING, latest)
    timed = trials[trials["start"].notna() & ends.notna() & (ends >= trials["start"])]
    timed = timed[timed["outcome"].isin([*ENDED, RUNNING])].sort_values("start")
    if timed.empty or latest == timed["start"].min():
        msg = "No trial has both a start and an end."
        raise CannotDraw(msg)
    first = timed["start"].min()
    frame = pd.DataFrame({"outcome": timed["outcome"]})
    frame["begin"] = (timed["start"] - first).dt.total_seconds()
    frame["finish"] = (ends[timed.index] - first).dt.total_seconds()
    told = _who(results, timed.index)
    frame["lane"], lanes = (_greedy(frame), []) if told is None else _named(told)
    lanes = lanes or [f"lane {place + 1}" for place in range(int(frame["lane"].max()) + 1)]
    paused, pauses = _pauses(frame)
    return _Drawn(frame, lanes, told is not None, float(frame["finish"].max()), paused, pauses)


def _who(results: Results, numbers: "pd.Index[int]") -> pd.DataFrame | None:
    """Host and worker of each trial, unless that is not known of all."""
    if not {"host", "worker"} <= set(results.attrs):
        return None
    told = results.attrs.loc[numbers, ["host", "worker"]]
    return told if told.notna().all(axis=None) else None


def _named(told: pd.DataFrame) -> "tuple[pd.Series[int], list[str]]":
    """Each trial's lane, and the lanes' names; hosts are named where there are several."""
    pairs = list(zip(told["host"].astype(str), told["worker"], strict=True))
    order = sorted(set(pairs), key=lambda pair: (pair[0], str(pair[1]).rjust(9)))
    hosts = len({host for host, _ in order})
    names = [f"{host} · {worker}" if hosts > 1 else f"worker {worker}" for host, worker in order]
    places = {pair: place for place, pair in enumerate(order)}
    return pd.Series([places[pair] for pair in pairs], told.index), names


def _greedy(frame: pd.DataFrame) -> "pd.Series[int]":
    """The fewest lanes in which no two trials overlap."""
    running: list[tuple[float, int]] = []  # when each taken lane is free again
    free: list[int] = []
    lanes = []
    for begin, finish in zip(frame["begin"], frame["finish"], strict=True):
        while running and running[0][0] <= begin:
            heapq.heappush(free, heapq.heappop(running)[1])
        lane = heapq.heappop(free) if free else len(running)
        heapq.heappush(running, (finish, lane))
        lanes.append(lane)
    return pd.Series(lanes, frame.index)


def _pauses(frame: pd.DataFrame) -> tuple[float, int]:
    """How long no trial ran, in seconds, and how often."""
    finished = frame["finish"].cummax().shift(fill_value=0.0)
    gaps = frame["begin"] - finished
    long = gaps[gaps > max(_PAUSE_SECONDS, _PAUSE_SHARE * frame["finish"].max())]
    return float(long.sum()), len(long)


def _bars(results: Results, seen: pd.DataFrame, unit: float) -> list[go.Bar]:
    traces = []
    hatched = len(seen) <= _MOST_HATCHED
    edge = {"color": theme.LIGHT["surface"], "width": 0.6 if hatched else 0}
    for outcome in (it for it in OUTCOMES if (seen["outcome"] == it).any()):
        bars = seen[seen["outcome"] == outcome]
        length = bars["finish"] - bars["begin"]
        texts = zip(words.hover_texts(results, bars.index), length, strict=True)
        traces.append(
            go.Bar(
                base=(bars["begin"] / unit).to_numpy(np.float32),
                x=(length / unit).to_numpy(np.float32),
                y=bars["lane"].to_numpy(np.int16),
                orientation="h",
                width=0.72,
                name=outcome,
                marker={**theme.bar_mark(outcome, hatched=hatched), "line": edge},
                customdata=[f"{text}<br>{wording.duration(took)}" for text, took in texts],
                hovertemplate="%{customdata}<extra></extra>",
            )
        )
    return traces


def _heat(seen: pd.DataFrame, lanes: int, span: float, unit: float) -> go.Heatmap:
    """The share of each stretch of time in which each lane ran trials."""
    edges = np.linspace(0, span, _BINS + 1)
    shares = np.zeros((lanes, _BINS))
    for place in range(lanes):
        here = seen[seen["lane"] == place]
        # Seconds of work up to each edge, over the trials that began before it.
        upto = np.clip(edges[:, np.newaxis], here["begin"], here["finish"]) - here["begin"].array
        shares[place] = np.diff(upto.sum(axis=1)) / (edges[1] - edges[0])
    return go.Heatmap(
        z=(100 * np.minimum(shares, 1.0)).round(1),
        x=(edges[:-1] + edges[1:]) / 2 / unit,
        y=list(range(lanes)),
        zmin=0,
        zmax=100,
        ygap=4,
        colorscale=theme.colour_scale(),
        colorbar={"title": {"text": "busy"}, "ticksuffix": " %", "thickness": 12},
        hovertemplate="busy %{z:.0f} %<extra></extra>",
    )


def _finding(drawn: _Drawn) -> str:
    who = wording.count(len(drawn.lanes), "worker" if drawn.told else "lane")
    active = wording.duration(drawn.span - drawn.paused)
    busy = f"busy {100 * drawn.busy:.0f} % of it"
    if not drawn.pauses:
        return f"{who}, {active} of wall clock, {busy}"
    pauses = "a pause" if drawn.pauses == 1 else f"{drawn.pauses} pauses"
    return f"{who}, {active} of wall clock without {pauses}, {busy}"


def _treatment(results: Results, drawn: _Drawn) -> str:
    parts = []
    if not drawn.told:
        parts.append("Who ran which trial is not known: lanes are the fewest without an overlap.")
    if drawn.pauses:
        paused = wording.duration(drawn.paused)
        parts.append(f"No trial ran for {paused} in all, which does not count as wall clock.")
    if results.count(RUNNING):
        parts.append("Running trials are drawn up to the last thing known of the study.")
    without = results.count(*ENDED, RUNNING) - len(drawn.trials)
    if without:
        parts.append(f"{wording.count(without, 'trial')} without a start or an end left out.")
    if len(drawn.lanes) > _MOST_LANES:
        parts.append(f"Drawn are the first {_MOST_LANES} of {len(drawn.lanes)} lanes.")
    return " ".join(parts)


def _table(drawn: _Drawn) -> pd.DataFrame:
    """One row a lane."""
    rows = []
    for place, here in drawn.trials.groupby("lane"):
        length = here["finish"] - here["begin"]
        rows.append(
            {
                "lane": drawn.lanes[int(place)],
                "trials": len(here),
                **words.outcome_counts(here["outcome"]),
                "busy seconds": float(length.sum()),
                "first start": float(here["begin"].min()),
                "last end": float(here["finish"].max()),
            }
        )
    return pd.DataFrame(rows)


def _alt(drawn: _Drawn) -> str:
    counts = drawn.trials["lane"].value_counts().sort_index()
    ran = [f"{theme.plain(drawn.lanes[lane])} ran {count:,}" for lane, count in counts.items()]
    more = f" and {len(ran) - _MOST_LANES} more" if len(ran) > _MOST_LANES else ""
    total = wording.count(len(drawn.trials), "trial")
    return f"{total} over {wording.duration(drawn.span)}: {', '.join(ran[:_MOST_LANES])}{more}."
