"""LeRobotDataset v3.0: episodes out to a folder, and folders, ours or others', in as episodes.

Plain code over `contracts.Episode`, pyarrow and ffmpeg: no simulator, no Ray, no torch.
"""

from embodichain.export.lerobot import LeRobotReader, read
from embodichain.export.mapping import FeatureMap
from embodichain.export.source import encoded
from embodichain.export.writer import LeRobotWriter, write

__all__ = ["FeatureMap", "LeRobotReader", "LeRobotWriter", "encoded", "read", "write"]
