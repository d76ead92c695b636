"""Which files named in a catalogue are opened: a night with hostile rows, and what a root may be."""

import io

import pytest
from PIL import Image

from recspark.config.schema import Config
from recspark.errors import ConfigError
from recspark.stages import items as items_stage
from recspark.stages.item_embeddings import stage as job
from recspark.stages.item_embeddings.roots import roots_of
from recspark.tables import item_embeddings as table
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.rejected_events import TABLE as REJECTED
from recspark.warehouse.store import Store
from tests import world
from tests.encoders import tiny


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(tiny.picture(seed)).save(file, "PNG")
    return file.getvalue()


def config_of(warehouse, catalogue, roots=(), **sections) -> Config:
    events = {"format": "parquet", "paths": ["x"], "scenario": "s", "user_id": "u", "item_id": "i", "event_time": "t"}
    items = {"format": "csv", "paths": [str(catalogue)], "options": {"header": "true"}, "item_id": "sku",
             "media": "picture", "media_roots": [str(root) for root in roots]}  # fmt: skip
    return Config.model_validate(
        {"warehouse": str(warehouse), "source": {"interactions": events, "items": items}, **sections}
    )


def test_files_elsewhere_are_items_without_them_until_their_folder_is_allowed(spark, tmp_path):
    """`near` lies beside the catalogue; `far` in a folder that is allowed from the second night on, and is then looked
    at again; the others never are."""
    for folder in ("shop", "elsewhere"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(png(0))
    (tmp_path / "shop/link.png").symlink_to(tmp_path / "elsewhere/a.png")
    places = {
        "near": tmp_path / "shop/a.png", "far": tmp_path / "elsewhere/a.png", "link": tmp_path / "shop/link.png",
        "up": tmp_path / "shop/../elsewhere/a.png", "passwd": "file:///etc/passwd", "environ": "/proc/self/environ",
        "cloud": "http://169.254.169.254/latest/meta-data", "chain": f"simplecache::file://{tmp_path}/shop/a.png",
        "unknown": "nope://x/1.png", "none": "",
    }  # fmt: skip
    catalogue = tmp_path / "shop/items.csv"
    catalogue.write_text("\n".join(["sku,picture", *(f"{item},{place}" for item, place in places.items())]))
    vit = {"encoder": str(tiny.build("vit", tmp_path / "vit")), "modality": "image"}
    config = config_of(tmp_path / "warehouse", catalogue, item_embeddings=vit)
    store = Store(spark, config, "run")
    store.append(INTERACTIONS, spark.createDataFrame([], INTERACTIONS.schema))
    items_stage.refresh(store, config, world.AS_OF)
    assert job.refresh(store, config, world.AS_OF).rejected == {"item image: outside media_roots": 8}
    assert store.read(REJECTED).count() == 8

    config = config_of(tmp_path / "warehouse", catalogue, [tmp_path / "elsewhere"], item_embeddings=vit)
    assert items_stage.refresh(store, config, world.AS_OF).note.startswith("0 new or changed")
    summary = job.refresh(store, config, world.AS_OF)
    # all but `near` again, which has a vector: `far` and the two that lead there have one now
    assert (summary.rows_out, summary.rejected) == (9, {"item image: outside media_roots": 5})
    found = {row.item_id for row in store.read(table.TABLE).collect() if row.embedding is not None}
    assert found == {"near", "far", "link", "up"}
    assert job.refresh(store, config.model_copy(update={"seed": 7}), world.AS_OF).rows_out == 0


@pytest.mark.parametrize(
    ("root", "why"),
    [
        ("nope://x/images", "whose kind fsspec does not know"),
        ("simplecache::/data", "a chain of protocols"),
        ("/", "every file of a machine"),
        ("file:///data/..", "every file of a machine"),
        ("https://user:word@example.org/", "a user"),
        ("s3://bucket/../other", "expected a folder, or an URL of a folder"),
    ],
)
def test_a_root_that_is_no_one_folder_is_refused(spark, tmp_path, root, why):
    with pytest.raises(ConfigError, match=f"^source.items.media_roots: .*{why}"):
        roots_of(spark, config_of(tmp_path, tmp_path / "items.csv", [root]))


def test_the_source_s_own_folder_is_a_root(spark, tmp_path):
    for name in ("a/items.csv", "b[1]/2024/items.csv"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    roots = {
        "a/items.csv": [f"{tmp_path}/a"], "a": [f"{tmp_path}/a"], "b[1]/2024": [f"{tmp_path}/b[1]/2024"],
        "*/2024/items.csv": [f"{tmp_path}"], "gone.csv": [],
    }  # fmt: skip
    for path, expected in roots.items():
        assert list(roots_of(spark, config_of(tmp_path, tmp_path / path))) == expected, path
