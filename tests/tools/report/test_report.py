"""The report: what it reads, how it counts, and a page that is whole, safe and self-contained."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from visrep import config, results
from visrep.errors import ConfigError, UserError
from visrep.results import Record
from visrep.tools.report import figures, report, tables
from visrep.tools.report import page as report_page
from visrep.tools.report import rows as report_rows
from visrep.tools.report import runs as report_runs

EVIL = "<script>alert(1)</script>\"onload='x"


def record(**changes: Any) -> Record:
    values: dict[str, Any] = {
        "task": "knn",
        "dataset": "scenes/test",
        "metric": "top1",
        "value": 70.0,
        "weights": "a" * 64,
        "init": "pretrained",
        "command": "visrep knn",
        "config": {"weights": "runs/x/pretrain/encoder.safetensors"},
        "engine": "visrep",
        "seed": 0,
        "time": "2026-11-24T10:00:00+00:00",
    }
    return Record(**values | changes)


def write(root: Path, folder: str, *records: Record, config: dict[str, Any] | None = None) -> Path:
    for each in records:
        results.append(root / folder / "results.jsonl", each)
    if config is not None:
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "config.yaml").write_text(yaml.safe_dump(config))
    return root / folder


def html_of(root: Path, **changes: Any) -> str:
    overrides = [f"runs={root}", *(f"{key}={value}" for key, value in changes.items())]
    cfg, _ = config.compose("report", overrides)
    report.main(cfg)
    return Path(cfg.out).read_text(encoding="utf-8")


def table_of(root: Path) -> list[Any]:
    return report_rows.rows(report_runs.collect(root))


def png_bytes(width: int = 12, height: int = 10) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """A small run of everything, laid out as the demo does."""
    root = tmp_path / "demo"
    pretrained = {"weights": "runs/demo/pretrain/encoder.safetensors"}
    untrained = {"weights": "runs/demo/untrained/encoder.safetensors"}
    backbone = {"depth": 18, "width": 0.25, "stem": "small"}
    base = {"name": "simclr_scenes", "backbone": backbone}
    pre = record(task="pretrain", dataset="scenes/train", metric="loss", extra={"method": "simclr"})
    write(root, "pretrain", pre, config=base | {"steps": None})
    write(root, "untrained", replace(pre, weights="0" * 64), config=base | {"steps": 0})
    lines = [{"step": step, "loss": 5.0 - step / 100} for step in range(20, 401, 20)]
    lines += [{"step": step, "knn": 30.0 + step / 10} for step in range(0, 401, 100)]
    (root / "pretrain" / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    (root / "pretrain" / "views.png").write_bytes(png_bytes())
    write(root, "knn", record(value=71.0, config=pretrained))
    for seed, value in enumerate((30.0, 32.0)):
        again = {"init": "random", "seed": seed, "weights": str(seed) * 64, "config": untrained}
        write(root, f"knn-r{seed}", record(value=value, extra={"bn": "reestimated"}, **again))
        write(root, f"knn-i{seed}", record(value=value - 4, extra={"bn": "initial"}, **again))
    write(root, "knn-p", record(value=46.0, init="raw_pixels", weights="none", config={}))
    for init, source, value in (("pretrained", pretrained, 80.0), ("random", untrained, 50.0)):
        for draw in range(3):
            write(
                root,
                f"finetune-{init}-{draw}",
                record(
                    task="finetune",
                    value=value + draw,
                    init=init,
                    extra={"labels": 0.1, "draw": draw},
                    config=source | {"draw": draw, "labels": 0.1},
                ),
            )
    for init, source, value in (("pretrained", pretrained, 60.0), ("random", untrained, 59.0)):
        for seed in range(2):
            folder = write(
                root,
                f"detect-{init}-{seed}",
                record(
                    task="detection",
                    metric="AP50",
                    value=value + 3 * seed,
                    init=init,
                    seed=seed,
                    engine="torchvision",
                    config=source,
                    extra={"form": "VOC 11-point"},
                ),
            )
            predictions(folder, root / "image.png")
    for role, value, parameters in (("teacher", 83.0, 700_000), ("student", 82.5, 175_000)):
        extra = {"role": role, "parameters": parameters, "bytes": 4 * parameters}
        sha = role[0] * 64
        write(root, "distill", record(task="distill", value=value, weights=sha, extra=extra))
        export = {"task": "export", "metric": "latency_ms", "weights": sha}
        latency = record(
            **export, value=0.4, engine="onnxruntime", extra={"bytes": 5 * parameters, "threads": 1}
        )
        write(root, "export", latency)
    near = [{"image": encoded(), "label": "3", "similarity": 0.91}]
    near += [{"image": encoded(), "label": "5", "similarity": 0.75}]
    query = {"image": encoded(), "label": "3", "neighbours": near}
    (root / "knn" / "neighbours.json").write_text(json.dumps({"queries": [query]}))
    return root


def encoded() -> str:
    return base64.b64encode(png_bytes()).decode()


def predictions(folder: Path, file: Path) -> None:
    file.write_bytes(png_bytes(100, 80))
    image = {
        "id": "one",
        "file": str(file),
        "height": 80,
        "width": 100,
        "truth": {"boxes": [[10.0, 20.0, 30.0, 50.0]], "labels": [1]},
        "boxes": [[11.0, 21.0, 31.0, 52.0], [60.0, 5.0, 70.0, 15.0]],
        "labels": [1, 0],
        "scores": [0.97, 0.2],
    }
    content = {"dataset": "scenes/test", "classes": ["cat", "dog"], "images": [image]}
    (folder / "predictions.json").write_text(json.dumps(content))


class Page(HTMLParser):
    """Tags, their attributes, and whether they are balanced."""

    VOID = ("meta", "img", "br", "link", "input", "hr")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_and_needs_nothing_from_elsewhere(chain):
    html = html_of(chain)
    page = Page(html)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "base"}
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "data", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
        assert not [name for name in attributes if name.startswith("on")]
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert "prefers-color-scheme: dark" in style and "max-width: 640px" in style
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    titles = re.findall("<h2>(.*?)</h2>", html)
    assert titles == [
        "Random init against pretrained",
        "Teacher against student",
        "Training",
        "Augmented views",
        "Boxes on test images",
        "Nearest neighbours",
        "How each number was made",
    ]
    assert "missing" not in html.split("</style>")[1]


def test_the_numbers_on_the_page(chain):
    html = html_of(chain)
    assert "<h1>SimCLR on scenes</h1>" in html
    assert "ResNet-18, width × 0.25, small stem" in html
    assert '31.0 <span class="range">(30.0–32.0, n=2)</span>' in html
    assert '71.0 <span class="range">(n=1)</span>' in html
    assert '<b class="up">+40.0</b>' in html
    assert "raw pixels, no net: 46.0" in html
    assert "statistics reestimated (31.0; 27.0 initial)" in html
    assert '81.0 <span class="range">(80.0–82.0, n=3)</span>' in html
    assert '<b class="up">+1.0</b><span class="range">ranges overlap</span>' in html
    assert "−0.5 points" in html
    assert "<td>0.70 M</td><td>0.17 M</td><td>25 %</td>" in html
    assert "<td>0.40 ms</td><td>0.40 ms</td><td>100 %</td>" in html
    assert "CC BY 2.0" in html


def test_every_record_is_shown_with_its_origin(chain):
    html = html_of(chain)
    made = html[html.index("How each number was made") :]
    for each in report_runs.collect(chain).records:
        assert f"<b>{each.value:.4g}</b>" in made
        assert each.weights == "none" or f"weights {each.weights[:12]}" in made
        assert f"seed {each.seed}" in made and f"engine {each.engine}" in made
    assert "(VOC 11-point)" in made and "<code>visrep knn</code>" in made
    assert "2026-11-24 10:00:00 UTC" in made


def test_names_from_users_are_escaped(tmp_path):
    root = tmp_path / "runs"
    hurt = {"dataset": EVIL, "command": EVIL, "engine": EVIL}
    config = {"name": EVIL, "backbone": {"depth": EVIL, "stem": EVIL}}
    extra = {"method": EVIL, "form": EVIL, EVIL: EVIL}
    folder = "<b>x"
    write(root, folder, record(task="pretrain", metric=EVIL, **hurt, extra=extra), config=config)
    for init in ("pretrained", "random"):
        write(root, f"{folder}{init}", record(task="detection", init=init, **hurt, extra=extra))
    write(root, "f", record(task="finetune", **hurt, extra={"labels": EVIL}))
    write(root, "d", record(task="distill", extra={"role": "student"}, **hurt))
    predictions(root / f"{folder}pretrained", tmp_path / "x.png")
    path = root / f"{folder}pretrained" / "predictions.json"
    content = json.loads(path.read_text())
    content |= {"dataset": EVIL, "classes": [EVIL, EVIL]}
    content["images"][0]["id"] = EVIL
    path.write_text(json.dumps(content))
    near = {"image": encoded(), "label": EVIL, "similarity": 0.5}
    content = {"queries": [near | {"neighbours": [near]}]}
    (root / f"{folder}pretrained" / "neighbours.json").write_text(json.dumps(content))
    (root / f"{folder}pretrained" / "env.txt").write_text(EVIL)
    html = html_of(root, title=f"'{EVIL.replace(chr(39), '')}'")
    assert "<script" not in html and "<b>x" not in html
    assert html.count("&lt;script&gt;") > 12
    for _, attributes in Page(html).tags:
        assert not [name for name in attributes if name.startswith("on")]


def test_what_is_missing_is_left_out_with_a_line(tmp_path):
    write(tmp_path / "runs", "knn", record())
    html = html_of(tmp_path / "runs")
    assert html.count('class="missing"') == 5
    assert "<h1>Results in runs</h1>" in html
    assert "70.0" in html and "CC BY" in html
    Page(html)
    other = write(tmp_path / "other", "knn", record(dataset="mine/test")).parent
    assert "CC BY" not in html_of(other)


def test_empty_and_absent_folders_are_named(tmp_path):
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "none"))):
        html_of(tmp_path / "none")
    (tmp_path / "empty" / "below").mkdir(parents=True)
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "empty"))):
        html_of(tmp_path / "empty")
    assert not list((tmp_path / "empty").glob("*.html"))


def test_a_damaged_results_file_is_named_with_its_line(tmp_path):
    folder = write(tmp_path, "knn", record())
    with open(folder / "results.jsonl", "a") as stream:
        stream.write('{"task": "knn"')
    with pytest.raises(UserError, match=r"knn/results\.jsonl:2"):
        html_of(tmp_path)
    (folder / "results.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"knn/results\.jsonl"):
        html_of(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"dataset": "d", "classes": [], "images": [{}]}',
        '{"queries": [{"label": "1", "image": "!", "neighbours": []}]}',
        '{"queries": [{"label": "1", "image": "aGk=", "neighbours": []}]}',
        '{"queries": 3}',
    ],
)
def test_damaged_pictures_are_left_out_and_named(chain, content, capsys):
    for name in ("detect-pretrained-0/predictions.json", "knn/neighbours.json"):
        (chain / name).write_text(content)
    (chain / "pretrain" / "views.png").write_text("no image")
    html = html_of(chain)
    Page(html)
    assert "Left out: " in html and "knn/neighbours.json was left out" in html
    said = capsys.readouterr().out
    assert "knn/neighbours.json was left out" in said
    assert "detect-pretrained-0/predictions.json was left out" in said
    assert "views.png" in said and "+40.0" in html


def test_a_test_image_that_is_gone_is_named(chain, capsys):
    (chain / "image.png").unlink()
    html = html_of(chain)
    assert "image.png" in capsys.readouterr().out and 'class="boxes"' not in html


def test_half_a_line_of_metrics_is_skipped(chain, capsys):
    path = chain / "pretrain" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"loss": 1}\n{"step": 500, "lo')
    html = html_of(chain)
    assert "2 unreadable lines" in capsys.readouterr().out
    assert html.count("<polyline") == 2


def test_an_older_report_is_replaced_and_another_page_is_not(chain):
    first = html_of(chain)
    write(chain, "linear", record(task="linear", value=12.3))
    assert "12.3" in html_of(chain) and "12.3" not in first
    mine = chain / "mine.html"
    mine.write_text("<html>my page</html>")
    with pytest.raises(UserError, match="mine.html"):
        html_of(chain, out=mine)
    assert mine.read_text() == "<html>my page</html>"
    with pytest.raises(ConfigError, match=r"\.html"):
        html_of(chain, out=chain / "report.pdf")
    with pytest.raises(ConfigError, match="min_score"):
        html_of(chain, min_score=50)


def test_a_failed_write_leaves_the_old_report(chain, monkeypatch):
    before = html_of(chain)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    write(chain, "linear", record(task="linear", value=12.3))
    with pytest.raises(UserError, match="No space left"):
        html_of(chain)
    assert (chain / "report.html").read_text(encoding="utf-8") == before
    assert not list(chain.glob(".report*"))


def test_rows_take_random_weights_from_the_untrained_twin(chain):
    rows = table_of(chain)
    assert [(row.task, row.metric) for row in rows] == [
        ("knn", "top1"),
        ("finetune", "top1"),
        ("detection", "AP50"),
    ]
    assert [row.gain for row in rows] == pytest.approx([40.0, 30.0, 1.0])
    assert [row.overlap for row in rows] == [False, False, True]
    assert all(row.chain == row.setting == "" for row in rows)


def test_two_methods_are_two_rows_that_share_their_random_init(tmp_path):
    backbone = {"depth": 18}
    for name, value in (("simclr", 70.0), ("moco", 60.0)):
        sha = name[0] * 64
        pre = record(task="pretrain", metric="loss", weights=sha)
        write(tmp_path, name, pre, config={"name": name, "backbone": backbone, "t": name})
        weights = {"weights": f"elsewhere/{name}/encoder.safetensors"}
        write(tmp_path, f"knn-{name}", record(value=value, weights=sha, config=weights))
    # The same method again with another seed is a repetition, not a method of its own.
    write(
        tmp_path,
        "again",
        record(task="pretrain", metric="loss", weights="b" * 64),
        config={"name": "moco", "backbone": backbone, "t": "moco", "seed": 1},
    )
    write(tmp_path, "knn-again", record(value=62.0, weights="b" * 64))
    random = {"init": "random", "weights": "f" * 64}
    config = {"weights": "elsewhere/simclr/encoder.safetensors"}
    write(tmp_path, "knn-random", record(value=30.0, config=config, **random))
    rows = table_of(tmp_path)
    assert [(row.chain, row.gain) for row in rows] == [("moco", 31.0), ("simclr", 40.0)]
    assert rows[0].spread("pretrained").n == 2


def test_unlike_runs_are_not_averaged(tmp_path):
    for init, gain in (("random", 0.0), ("pretrained", 10.0)):
        for steps, value in ((100, 40.0), (900, 70.0)):
            again = {"init": init, "config": {"steps": steps}, "task": "detection"}
            write(tmp_path, f"{init}{steps}", record(value=value + gain, metric="AP50", **again))
    rows = table_of(tmp_path)
    assert [(row.setting, row.gain) for row in rows] == [("steps=100", 10.0), ("steps=900", 10.0)]
    write(tmp_path, "odd", record(task="detection", metric="AP50", config={"steps": 5}))
    (row,) = table_of(tmp_path)
    assert any("steps" in note for note in row.notes)


def test_a_measurement_made_again_counts_once_and_last():
    early = record(value=1.0, time="2026-11-24T10:00:00+00:00", extra={"bytes": 3})
    late = record(value=2.0, time="2026-11-24T11:00:00+00:00", extra={"bytes": 4})
    other = record(value=3.0, seed=1)
    assert report_runs.latest([late, other, early]) == [other, late]


def test_a_second_training_replaces_the_curve_of_the_first():
    steps = [(20, 3.0), (40, 2.0), (20, 9.0), (40, 8.0), (60, 7.0)]
    folder = report_runs.Folder(
        path=Path("x"), name="x", metrics=[{"step": s, "loss": v} for s, v in steps]
    )
    assert folder.points("loss") == [(20, 9.0), (40, 8.0), (60, 7.0)]


def test_chart_draws_points_where_the_axes_say():
    points = [(0.0, 10.0), (50.0, 20.0), (100.0, 40.0)]
    series = figures.Series(name="a", points=points)
    svg = figures.chart(
        [series], title="t", x_label="updates", y_label="%", references=[("level", 20.0)]
    )
    drawn = re.search('points="(.*?)"', svg)
    assert drawn
    (x0, y0), (x1, y1), (x2, y2) = (map(float, p.split(",")) for p in drawn[1].split())
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert 2 * (y0 - y1) == pytest.approx(y1 - y2, abs=0.3)  # up is more
    level = re.search(r'class="level" d="M\d+ ([\d.]+)H', svg)
    assert level and float(level[1]) == pytest.approx(y1, abs=0.1)
    ticks = re.findall(r'y="([\d.]+)" text-anchor="end">([\d.]+)</text>', svg)
    at = {float(value): float(y) - 4 for y, value in ticks}
    assert at[20.0] == pytest.approx(y1, abs=0.2) and at[40.0] == pytest.approx(y2, abs=0.2)


def test_long_curves_are_thinned_and_keep_their_end():
    points = [(float(step), step % 7 + 1.0) for step in range(5000)]
    svg = figures.chart([figures.Series(name="a", points=points)], title="", x_label="", y_label="")
    drawn = re.search('points="(.*?)"', svg)
    assert drawn and len(drawn[1].split()) <= figures.MOST_POINTS + 1
    assert drawn[1].split()[-1].startswith(f"{figures.WIDTH - figures.RIGHT:.1f},")


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (1.83, 4.7), (0, 2800), (-3.0, -1.0), (1e-6, 3e-6), (5.0, 5.0)]
)
def test_ticks_are_inside_and_few(low, high):
    found = figures.ticks(low, high)
    assert 1 <= len(found) <= 6
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)


def test_boxes_are_where_they_were_predicted(chain):
    html = html_of(chain)
    assert html.count('class="boxes"') == 2  # one image, two detectors
    found = re.findall(
        r'<rect class="found" x="(.*?)" y="(.*?)" width="(.*?)" height="(.*?)"', html
    )
    assert found == [("11.0", "21.0", "20.0", "31.0")] * 2
    truth = re.findall(
        r'<rect class="truth" x="(.*?)" y="(.*?)" width="(.*?)" height="(.*?)"', html
    )
    assert truth == [("10.0", "20.0", "20.0", "30.0")] * 2
    assert 'viewBox="0 0 100 80"' in html and ">dog 97%</text>" in html and "cat 20%" not in html
    assert "cat 20%" in html_of(chain, min_score=0.1)


def test_neighbours_of_the_same_class_are_marked(chain):
    html = html_of(chain)
    row = html[html.index('<div class="queries">') :]
    row = row[: row.index("</section>")]
    assert re.findall('<figure class="(.*?)"', row) == ["query", "same", "other"]
    assert "0.91" in row and "0.75" in row


def test_pairs_join_exports_by_hash(chain):
    (pair,) = report_rows.pairs(report_runs.collect(chain))
    assert (pair.student.parameters, pair.student.bytes) == (175_000, 700_000)
    assert pair.student.onnx_bytes == 875_000
    assert pair.teacher.latency_ms == {"onnxruntime": 0.4}
    assert pair.teacher.top1.mean == 83.0 and pair.student.top1.mean == 82.5


@pytest.mark.parametrize(
    ("made", "shown"),
    [
        (tables.count(703_114), "0.70 M"),
        (tables.count(795_000_000), "795 M"),
        (tables.count(85_000), "85 k"),
        (tables.size(2_843_000), "2.84 MB"),
        (tables.size(71_200), "71 kB"),
        (tables.signed(-0.51), "−0.5"),
        (tables.signed(-0.04), "0.0"),
        (tables.share(0.01), "1 %"),
        (tables.share("my/list.txt"), "my/list.txt"),
        (report_page.method("moco_v2"), "MoCo v2"),
        (report_page.method("simclr_scenes"), "SimCLR"),
        (report_page.method("barlow_twins"), "Barlow Twins"),
        (report_page.method("mine"), "mine"),
        (
            report_page.backbone({"depth": 152, "width": 3, "sk": True}),
            "ResNet-152 with SK, width × 3",
        ),
    ],
)
def test_formats(made, shown):
    assert made == shown
