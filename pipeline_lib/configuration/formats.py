"""The annotation lists that each format of a data set needs."""

# The lists without which a format cannot be read, and what each of them is.
REQUIRED_LISTS: dict[str, dict[str, str]] = {
    "kinetics": {
        "train": "the official CSV (label,youtube_id,time_start,time_end,split[,is_cc]) or the crawler's JSON",
        "validation": "the official CSV (label,youtube_id,time_start,time_end,split[,is_cc]) or the crawler's JSON",
    },
    "ucf101": {"splits": "the folder with classInd.txt, trainlist01.txt … testlist03.txt"},
    "hmdb51": {"splits": "the folder with the {class}_test_split{1,2,3}.txt files"},
    "something_v1": {
        "train": "something-something-v1-train.csv",
        "validation": "something-something-v1-validation.csv",
    },
    "something_v2": {
        "train": "something-something-v2-train.json",
        "validation": "something-something-v2-validation.json",
    },
    "ava": {
        "train": "ava_train_v2.1.csv or ava_train_v2.2.csv",
        "validation": "ava_val_v2.1.csv or ava_val_v2.2.csv",
        "actions": "ava_action_list_v2.1_for_activitynet_2018.pbtxt or its v2.2",
    },
    "jhmdb": {"boxes": "JHMDB-GT.pkl, the ground-truth tubes"},
    "ucf101_24": {"boxes": "UCF101v2-GT.pkl, the ground-truth tubes"},
    "sports1m": {
        "train": "train_partition.txt (url label,label,…)",
        "validation": "test_partition.txt (url label,label,…)",
    },
    "table": {},
    "folder": {},
    "generated": {},
}
