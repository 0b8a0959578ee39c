"""The page in a real browser: at a phone's width and a desk's, light and dark."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.tools.report.sample_runs import errors, html_of, record, write

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
FRAMES = [(390, "light"), (390, "dark"), (1200, "light"), (1200, "dark")]
PROBE = Path(__file__).with_name("findings.js")

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser here: {', '.join(BROWSERS)}")


def seen(page: str, folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """What findings.js finds of `page` in each of FRAMES, and the lines of the console."""
    # A frame has the width and the colour scheme that it is given, whatever the window has.
    frames = "".join(
        f'<iframe width="{width}" height="900" style="border: 0; color-scheme: {scheme}" '
        f'srcdoc="{html.escape(page)}"></iframe>'
        for width, scheme in FRAMES
    )
    pictures = "".join(
        f'<img src="{source}">' for source in re.findall(r'<image\s+href="(.*?)"', page)
    )
    around = folder / "around.html"
    around.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><pre id="findings"></pre>{pictures}{frames}'
        f"<script>{PROBE.read_text(encoding='utf-8')}</script>",
        encoding="utf-8",
    )
    quiet = ("gpu", "quic", "background-networking", "component-update", "sync", "extensions")
    command = [
        *(str(BROWSER), "--headless", "--no-sandbox", "--no-first-run"),
        *(f"--disable-{word}" for word in quiet),
        *(f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr"),
        *("--dump-dom", around.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    found = re.search('<pre id="findings">(.+?)</pre>', done.stdout)
    assert found, done.stderr
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(found[1])), console


def test_the_report_is_readable_at_every_width_in_light_and_dark(chain, tmp_path):
    entry = {
        "metric": "AP50",
        "value": 82.4,
        "weights": "MoCo v2",
        "source": "long" * 30,
        "runs": 5,
    }
    errors(chain)
    config = {"task": "voc0712_c4", "published": [entry | {"metric": m} for m in ("AP50", "AP75")]}
    for folder in ("detect", "d" * 90):
        long = {"config": config, "dataset": "x" * 60, "command": "visrep " + "y" * 200}
        write(chain, folder, record(task="detection", metric="AP50", **long))
    for selector in range(4):
        extra = {"labels": 0.01, "selector": selector, "finetuned": str(selector)}
        write(chain, f"few{selector}", record(task="finetune", extra=extra))
    frames, console = seen(html_of(chain), tmp_path)
    assert not console
    assert [(each["width"], each["dark"]) for each in frames] == [
        (width, scheme == "dark") for width, scheme in FRAMES
    ]
    for each in frames:
        assert each["sideways"] <= 0
        assert (each["pictures"], each["broken"]) == (10, [])
        assert each["pale"] == each["cut"] == []
        assert (each["ground"] < 0.1) == each["dark"]


def test_the_browser_sees_what_is_wrong(tmp_path):
    wrong = (
        '<div class="card" style="overflow: auto"><p style="width: 800px">cut</p></div>'
        '<p style="width: 700px">wide</p><img src="data:image/png;base64,aGk=">'
        '<svg><image href="data:image/jpeg;base64,aGk="/><rect width="-1"/></svg>'
        '<p style="color: #888">pale on white</p><p style="opacity: 0.3">faint</p>'
    )
    (phone, *_, desk), console = seen(wrong, tmp_path)
    assert len(phone["cut"]) == 1 and desk["cut"] == []
    assert phone["sideways"] >= 310 and desk["sideways"] <= 0
    assert (phone["pictures"], len(phone["broken"])) == (2, 2)
    assert [line.partition(":")[0] for line in phone["pale"]] == ["pale on white", "faint"]
    assert "negative value" in console[0]
