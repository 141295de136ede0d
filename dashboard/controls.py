"""What the pages share: choices that live in the address, the choice of a run, looking again while it trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import streamlit as st

from dashboard.runs import Run, list_runs, newest, root, time_left

Option = TypeVar("Option")

SECONDS_BETWEEN_LOOKS = 4
CARRIED = "carried over to the next page"
FOLLOW = "follow"

START_HERE = """
Nothing has been trained here yet. In the repository's root, run

```
make demo
```

to train the default profile on drawn shapes and measure it. On a laptop that takes about a quarter of an hour;
this page fills as soon as the first training stage starts. To train on pictures of your own, first run
`stylegan-t profile emoji --set download.source.path=FOLDER`.
"""
COLOURS = {"running": "blue", "finished": "green", "stopped": "orange"}
ICONS = {"running": ":material/sync:", "finished": ":material/check:", "stopped": ":material/pause:"}


def choose(
    widget: Callable[..., Option | None],
    name: str,
    label: str,
    options: Sequence[Option],
    default: Option,
    *,
    says: Callable[[Option], str] = str,
    carry: bool = False,
    **appearance: Any,
) -> Option:
    """The option that the address names, until someone picks another with ``widget``.

    While the training is followed, the address holds no default, so "the newest" goes along as options are added;
    otherwise it names every choice, and a link to it stays what it is. What is no longer an option is the default.
    With ``carry`` the choice goes along to the other pages.
    """
    carried = st.session_state.setdefault(CARRIED, {})
    wanted = st.query_params.get(name, carried.get(name) if carry else None)
    value = next((option for option in options if str(option) == wanted), None)
    value = default if value is None else value
    key = f"{name} {hash(tuple(map(says, options)))}"  # other options make another widget, which starts at ``value``
    known = st.session_state.get(f"default of {name}")
    st.session_state[f"default of {name}"] = default
    if key not in st.session_state or (wanted is None and known != default):
        st.session_state[key] = value
    chosen = widget(label, options, format_func=says, key=key, **appearance)
    chosen = value if chosen is None else chosen
    named = {name: str(chosen)} if chosen != default or not st.session_state.get(FOLLOW, True) else {}
    for place in (st.query_params, carried) if carry else (st.query_params,):
        place.pop(name, None) if not named else place.update(named)
    return chosen


def stage_title(stage: str) -> str:
    return stage.replace("_", " ").capitalize()


def choose_run(runs: Sequence[Run]) -> Run:
    """The stage and run to show; a line of facts below them."""
    first = newest(runs)
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    with left:
        stages = list(dict.fromkeys(run.stage for run in runs))
        stage = choose(
            st.segmented_control,
            "stage",
            "Stage",
            stages,
            first.stage,
            says=stage_title,
            carry=True,
            required=True,
        )
    mine = {run.digest: run for run in runs if run.stage == stage}
    with right:
        usual = first.digest if first.stage == stage else next(iter(mine))
        digest = choose(
            st.selectbox, "run", "Run", list(mine), usual, says=lambda digest: mine[digest].label, carry=True
        )
    return mine[digest]


def show_state(run: Run) -> None:
    """How far a run is: a badge, the images so far, the time left."""
    if run.total_kimg is None:
        return
    facts = [f"**{run.kimg:,.4g}** of {run.total_kimg:,.4g} kimg"]
    if left := time_left(run):
        facts.append(f"about {in_words(left)} left")
    if run.state == "stopped":
        facts.append("`dvc repro` goes on where it stopped")
    with st.container(horizontal=True, vertical_alignment="center", key="state"):
        st.badge(run.state, icon=ICONS[run.state], color=COLOURS[run.state])  # type: ignore[arg-type]
        st.markdown(" · ".join(fact for fact in facts if fact), width="content")
    if run.state != "finished" and run.progress is not None:
        st.progress(run.progress)


def in_words(time: timedelta) -> str:
    minutes = time.total_seconds() / 60
    if minutes < 1:
        return f"{time.total_seconds():.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def page(title: str, show: Callable[[list[Run]], None], *, needs_runs: bool = True) -> None:
    """Draw a page, again every few seconds while a run trains and the reader wants to follow it."""
    st.html("<style>.stMainBlockContainer {padding-top: 4rem}</style>")
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="bottom"):
        st.title(title, anchor=False, width="content")
        follow = st.toggle("Follow the training", value=True, key=FOLLOW, persist_state="session",
                         help=f"look for new records every {SECONDS_BETWEEN_LOOKS} seconds")  # fmt: skip

    def look() -> None:
        runs = list_runs(root())
        if needs_runs and not runs:
            with st.container(border=True, key="start"):
                st.subheader("No runs yet", anchor=False)
                st.markdown(START_HERE)
        else:
            show(runs)

    st.fragment(look, run_every=SECONDS_BETWEEN_LOOKS if follow else None)()
