"""The formats of data sets, each declared once: its importer and the annotation lists that it needs."""

from typing import NamedTuple


class Format(NamedTuple):
    """An annotation format."""

    importer: str | None
    """Module and function, ``Dataset → Listing``; None for data sets that are generated, not read."""
    lists: dict[str, str] = {}
    """The annotation lists without which it cannot be read, and what each of them is."""
    any_list: dict[str, str] = {}
    """One that is asked for where no list at all is given."""
    kept_cut: bool = False
    """Whether people often keep the videos cut to the annotated part already."""
    folders_of_frames: bool = False
    """Whether a video is a folder of images rather than a file."""
    frames_per_second: float | None = None
    """The rate of such images, if the data set's readme says it; ``frames_per_second`` of a data set overrides it."""

    @property
    def module(self) -> str:
        """The importer's module."""
        assert self.importer is not None, "generated data sets are read as the table that `generate` wrote"
        return self.importer.partition(":")[0]


_KINETICS = "the official CSV (label,youtube_id,time_start,time_end,split[,is_cc]) or the crawler's JSON"

FORMATS: dict[str, Format] = {
    "generated": Format(None),
    "kinetics": Format("pipeline_lib.manifests.kinetics:read", {"train": _KINETICS, "validation": _KINETICS}),
    "ucf101": Format(
        "pipeline_lib.manifests.splits:read_ucf101",
        {"splits": "the folder with classInd.txt, trainlist01.txt … testlist03.txt"},
    ),
    "hmdb51": Format(
        "pipeline_lib.manifests.splits:read_hmdb51",
        {"splits": "the folder with the {class}_test_split{1,2,3}.txt files"},
    ),
    "folder": Format("pipeline_lib.manifests.tables:read_folder"),
    "table": Format("pipeline_lib.manifests.tables:read_table", any_list={"train": "a CSV with path,label[,subset]"}),
    "something_v1": Format(
        "pipeline_lib.manifests.something:read_v1",
        {"train": "something-something-v1-train.csv", "validation": "something-something-v1-validation.csv"},
        folders_of_frames=True,
        frames_per_second=12.0,
    ),
    "rawframes": Format("pipeline_lib.manifests.rawframes:read", folders_of_frames=True),
    "something_v2": Format(
        "pipeline_lib.manifests.something:read_v2",
        {"train": "something-something-v2-train.json", "validation": "something-something-v2-validation.json"},
    ),
    "ava": Format(
        "pipeline_lib.manifests.ava:read",
        {
            "train": "ava_train_v2.1.csv or ava_train_v2.2.csv",
            "validation": "ava_val_v2.1.csv or ava_val_v2.2.csv",
            "actions": "ava_action_list_v2.1_for_activitynet_2018.pbtxt or its v2.2",
        },
        kept_cut=True,
    ),
    "jhmdb": Format("pipeline_lib.manifests.tubes:read", {"boxes": "JHMDB-GT.pkl, the ground-truth tubes"}),
    "ucf101_24": Format("pipeline_lib.manifests.tubes:read", {"boxes": "UCF101v2-GT.pkl, the ground-truth tubes"}),
    "sports1m": Format(
        "pipeline_lib.manifests.sports1m:read",
        {
            "train": "train_partition.txt (url label,label,…)",
            "validation": "test_partition.txt (url label,label,…)",
        },
    ),
}
