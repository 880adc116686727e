"""Telemetry: metrics to MLflow, the live view, intervals, the report. MLflow and Ray are imported on use."""

from embodichain.telemetry.live import LiveView, Snapshot
from embodichain.telemetry.logger import LoggerConfig, RunLogger
from embodichain.telemetry.logger_actor import LoggerHandle, start_logger
from embodichain.telemetry.metrics import METRIC_UNITS, MetricBuffer, MetricPoint, success_metrics
from embodichain.telemetry.report import write_report
from embodichain.telemetry.stats import wilson_interval

__all__ = [
    "METRIC_UNITS",
    "LiveView",
    "LoggerConfig",
    "LoggerHandle",
    "MetricBuffer",
    "MetricPoint",
    "RunLogger",
    "Snapshot",
    "start_logger",
    "success_metrics",
    "wilson_interval",
    "write_report",
]
