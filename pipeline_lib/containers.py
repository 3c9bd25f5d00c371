"""What ffmpeg and PyAV may read: files of containers that hold their own picture, and nothing that a file names.

A playlist (HLS, DASH, ffconcat, IMF) that is called ``x.mp4`` would be opened by its content. It makes the reader open
other files and addresses, and repeats them without a bound. So every call that reads a file names the protocols and the
formats that it accepts (https://ffmpeg.org/ffmpeg-formats.html, ``format_whitelist``, ``protocol_whitelist``).
"""

PROTOCOLS = "file,pipe"
_VIDEO = (
    *("mov", "matroska", "avi", "mpeg", "mpegts", "mpegtsraw", "mpegvideo", "flv", "live_flv", "kux", "asf", "asf_o"),
    *("ogg", "nut", "ivf", "mxf", "gxf", "dv", "rm", "wtv", "dxa", "dhav", "pva", "nsv", "nuv", "swf", "gif", "apng"),
    *("m4v", "h261", "h263", "h264", "hevc", "vvc", "evc", "av1", "obu", "vc1", "vc1test", "cavsvideo", "avs2"),
    *(
        "avs3",
        "dirac",
        "dnxhd",
        "mjpeg",
        "mjpeg_2000",
        "yuv4mpegpipe",
        "smjpeg",
        "avr",
        "ea",
        "roq",
        "film_cpk",
        "flic",
    ),
    *("bink", "smk", "amv", "mv", "mvi", "viv", "vivo", "xmv", "thp", "webp_anim", "jpegxl_anim", "iv8", "lxf", "mtv"),
)
# Sound alone is no video, and the manifest says so. It opens these to find it out.
_SOUND = (
    *("mp3", "aac", "ac3", "eac3", "dts", "wav", "w64", "flac", "aiff", "caf", "au", "amr", "ape", "wv", "tta", "mp2"),
)
FORMATS = ",".join((*_VIDEO, *_SOUND))
"""Names of libavformat's demuxers that may open a file, with commas between; others are an error of opening."""
READING = {"protocol_whitelist": PROTOCOLS, "format_whitelist": FORMATS}
"""Options of ``av.open`` and, with a dash in front, of ffmpeg's input."""


def reading_arguments(formats: str = FORMATS) -> list[str]:
    """Options of ffmpeg in front of ``-i``.

    Args:
        formats: demuxers that may open the input, with commas between.
    """
    return ["-protocol_whitelist", PROTOCOLS, "-format_whitelist", formats]
