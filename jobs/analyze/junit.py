"""`junit.xml`: the verdict, every signal and every control as test cases, for the CI systems that read such files.

| what | test case |
| --- | --- |
| verdict damaged | failed, with the headline |
| verdict inconclusive | skipped, with the headline: nothing was shown, neither way |
| a signal that failed, verdict damaged | failed, with its sentence |
| a signal that failed, another verdict | skipped: alone it did not decide |
| a signal or control that could not be measured | skipped, with the reason |
| everything else | passed; its sentence is its output, a warning begins with `warn:` |

So a file with failures is a damaged model, as exit code 4 of `analyze.gate=true` is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from xml.etree import ElementTree as ET

SUITE: Final = "alignment"
# What XML 1.0 cannot hold, not even escaped.
_UNWRITABLE: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def build_junit(summary: Mapping[str, Any]) -> bytes:
    """The file's content.

    Args:
        summary: content of summary.json.

    Returns:
        XML in UTF-8; the same summary gives the same bytes.
    """
    cases = list(_cases(summary))
    counts = {kind: str(sum(case.find(kind) is not None for case in cases)) for kind in ("failure", "skipped")}
    totals = {"tests": str(len(cases)), "failures": counts["failure"], "errors": "0", "skipped": counts["skipped"]}
    root = ET.Element("testsuites", {"name": SUITE, **totals})
    suite = ET.SubElement(root, "testsuite", {"name": f"{SUITE}.{_clean(summary['run_id'])}", **totals})
    properties = ET.SubElement(suite, "properties")
    run = summary["run"]
    facts = {"run_id": summary["run_id"], "profile": summary["profile"], "verdict": summary["verdict"]}
    facts |= {name: run[name] for name in ("base_model", "dataset", "prompts")}
    for name, value in facts.items():
        ET.SubElement(properties, "property", {"name": name, "value": _clean(value)})
    suite.extend(cases)
    if summary["degradations"]:
        told = "\n".join(f"degraded: {one['stage']}: {one['name']}: {one['detail']}" for one in summary["degradations"])
        ET.SubElement(suite, "system-out").text = _clean(told)
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _cases(summary: Mapping[str, Any]) -> Iterator[ET.Element]:
    damaged = summary["verdict"] == "damaged"
    verdict = {"damaged": "failure", "inconclusive": "skipped"}.get(summary["verdict"], "passed")
    yield _case("verdict", "verdict", verdict, f"{summary['headline']} {summary['recommendation']}", "")
    for signal in summary["signals"]:
        status = signal["status"]
        outcome = {"fail": "failure" if damaged else "skipped", "not_measured": "skipped"}.get(status, "passed")
        sentence = signal["sentence"]
        if status == "fail" and not damaged:
            sentence = f"failed its line, which alone did not decide the verdict: {sentence}"
        elif status == "warn":
            sentence = f"warn: {sentence}"
        yield _case("signal", signal["name"], outcome, sentence, signal["threshold"])
    for control in summary["controls"]:
        outcome = "skipped" if control["status"] == "undefined" else "passed"
        mark = "warn: " if control["explains"] else ""
        yield _case("control", control["name"], outcome, f"{mark}{control['sentence']}", control["how"])


def _case(kind: str, name: str, outcome: str, sentence: str, detail: str) -> ET.Element:
    """One test case; the sentence is the message of a failure or a skip, else the output."""
    case = ET.Element("testcase", {"classname": f"{SUITE}.{kind}", "name": _clean(name), "time": "0"})
    if outcome == "passed":
        ET.SubElement(case, "system-out").text = _clean(sentence)
    else:
        ET.SubElement(case, outcome, {"message": _clean(sentence)}).text = _clean(detail) or None
    return case


def _clean(text: object) -> str:
    return _UNWRITABLE.sub("\N{REPLACEMENT CHARACTER}", str(text))
