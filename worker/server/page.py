"""The status page: what `/api/status` says, for eyes. No script, nothing from elsewhere; it loads itself again."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["page"]

REFRESH_SECONDS = 2
UNKNOWN = "–"  # noqa: RUF001 - an en dash is meant: a number that is not known is not 0

_STYLE = """
:root { color-scheme: light dark; --bad: #b3261e; --odd: #8a5a00; --good: #1b6e3c; --line: #8884; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a80; --odd: #ffca7a; --good: #7bd99f; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 90rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; }
p { margin: .3rem 0 1rem; }
ul { margin: 0 0 1rem; padding-left: 1.2rem; }
.bad { color: var(--bad); } .odd { color: var(--odd); } .good { color: var(--good); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin-bottom: 1rem; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .45rem .6rem; text-align: right; }
th:first-child, td:first-child { overflow-wrap: anywhere; text-align: left; }
td:first-child { font-weight: 600; }
td:not(:first-child) { white-space: nowrap; }
th { font-weight: 500; vertical-align: bottom; }
@media (max-width: 62rem) {
  thead { display: none; }
  tr { border: 1px solid var(--line); border-radius: .5rem; display: block; margin-bottom: 1rem; padding: .3rem .8rem; }
  td { border: 0; display: flex; justify-content: space-between; padding: .15rem 0; }
  td:not(:first-child)::before { content: attr(data-name); opacity: .75; }
}
"""

Snapshot = Mapping[str, Any]
Cell = Callable[[Snapshot], str]


def page(status: Mapping[str, Any]) -> str:
    """Return the page of a status: service, version, state, uptime, problems, warnings, and the numbers of queues and outboxes.

    What is absent, `None` or not a number is shown as a dash, never as 0. Every value is escaped.
    """
    service, state = _text(status.get("service")), _text(status.get("state"))
    looks = "good" if state == "ready" else "odd" if state == "draining" else "bad"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="{REFRESH_SECONDS}">
<title>{service}: {state}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{service} <span class="{looks}">{state}</span></h1>
<p>longshore {_text(status.get("version"))}, up {_duration(status.get("uptime_seconds"))}</p>
{_list("bad", status.get("problems") or ())}{_list("odd", status.get("warnings") or ())}{_tables(status.get("queues") or {}, status.get("outboxes") or {})}
<p><a href="/api/status">/api/status</a> <a href="/metrics">/metrics</a> <a href="/readyz">/readyz</a> <a href="/livez">/livez</a></p>
</body>
</html>
"""


def _list(looks: str, sentences: Sequence[object]) -> str:
    items = "".join(f"<li>{_text(sentence)}</li>" for sentence in sentences)
    return f'<ul class="{looks}">{items}</ul>\n' if items else ""


def _tables(queues: Mapping[str, Snapshot], outboxes: Mapping[str, Snapshot]) -> str:
    if not queues and not outboxes:
        return "<p>No queue has been started yet.</p>"
    return _table("queue", queues, _QUEUE) + _table("outbox", outboxes, _OUTBOX)


def _table(what: str, shown: Mapping[str, Snapshot], columns: Mapping[str, Cell]) -> str:
    if not shown:
        return ""
    head = "".join(f'<th scope="col">{name}</th>' for name in (what, *columns))
    rows = "".join(f"<tr>{''.join(_row(name, one, columns))}</tr>\n" for name, one in shown.items())
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n"


def _row(name: str, shown: Snapshot, columns: Mapping[str, Cell]) -> Iterator[str]:
    yield f"<td>{_text(name)}</td>"
    for column, cell in columns.items():
        yield f'<td data-name="{column}">{cell(shown)}</td>'


def _text(value: object) -> str:
    return UNKNOWN if value is None else escape(str(value))


def _at(queue: Snapshot, *path: str) -> Any:
    found: Any = queue
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _count(*path: str) -> Cell:
    def cell(queue: Snapshot) -> str:
        value = _at(queue, *path)
        return f"{value:,.0f}" if _is_number(value) else UNKNOWN

    return cell


def _retried(queue: Snapshot) -> str:
    """Return what was given back for another attempt, and what was run again in place."""
    counts = [_at(queue, "settled", "retry"), _at(queue, "retried_in_place")]
    known = [count for count in counts if _is_number(count)]
    return f"{sum(known):,.0f}" if known else UNKNOWN


def _bad(*path: str) -> Cell:
    """Return a count that looks bad unless it is 0."""

    def cell(shown: Snapshot) -> str:
        text = _count(*path)(shown)
        return text if text in {"0", UNKNOWN} else f'<span class="bad">{text}</span>'

    return cell


def _in_hand(queue: Snapshot) -> str:
    return f"{_count('in_hand')(queue)} / {_count('slots', 'size')(queue)}"


def _lag(queue: Snapshot) -> str:
    """Return the age since it was published; since SQS took it in where that is unknown."""
    published = _at(queue, "last_lag_seconds", "published")
    return _duration(published if _is_number(published) else _at(queue, "last_lag_seconds", "sent"))


def _since_last_message(queue: Snapshot) -> str:
    return _duration(_at(queue, "seconds_since_last_message"))


def _ready(queue: Snapshot) -> str:
    is_ready = queue.get("ready")
    if is_ready is None:
        return UNKNOWN
    if is_ready and queue.get("breaker_open"):
        return '<span class="bad">breaker open</span>'
    return '<span class="good">yes</span>' if is_ready else '<span class="bad">no</span>'


def _duration(seconds: Any) -> str:
    """Return a span in the two units that matter: `12 ms`, `3.4 s`, `5 min 3 s`, `2 h 10 min`, `4 d 1 h`."""
    if not _is_number(seconds):
        return UNKNOWN
    milliseconds = round(max(0, seconds) * 1000)
    if milliseconds < 1000:  # noqa: PLR2004 - a second
        return f"{milliseconds} ms"
    if round(seconds, 1) < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


_QUEUE: Mapping[str, Cell] = {
    "waiting": _count("messages", "visible"),
    "in flight": _count("messages", "in_flight"),
    "delayed": _count("messages", "delayed"),
    "dead letters": _bad("dead_letters"),
    "received": _count("received"),
    "handled": _count("settled", "ack"),
    "retried": _retried,
    "dead-lettered": _count("settled", "dead_letter"),
    "in hand / slots": _in_hand,
    "last lag": _lag,
    "since last message": _since_last_message,
    "ready": _ready,
}
"""What stands in which column; the names are ours and need no escaping."""

_OUTBOX: Mapping[str, Cell] = {
    "waiting": _count("waiting"),
    "oldest": lambda outbox: _duration(_at(outbox, "oldest_seconds")),
    "sent": _count("sent"),
    "refused": _bad("refused"),
}
