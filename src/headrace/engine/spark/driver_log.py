"""Where Spark's own words go: into a file beside the store, because an outage has pages of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from headrace.engine.spark.session import LEAST

__all__ = ["conf_with_log", "log_file"]

_OPTIONS = "spark.driver.extraJavaOptions"
_SETTINGS = """\
# Written anew by each run; settings of your own: {options} = "-Dlog4j2.configurationFile=…"
status = error
rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {file}
appender.file.filePattern = {file}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{yyyy-MM-dd HH:mm:ss.SSS}} %p %c{{1}}: %m%n%ex
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 5MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
"""


def log_file(folder: Path) -> Path:
    """Return where Spark's own words are, of a run that keeps its notes in `folder`."""
    return folder / "spark.log"


def conf_with_log(conf: Mapping[str, str], folder: Path) -> Mapping[str, str]:
    """Return Spark's settings, and with them that its words go into `log_file`, at most 20 MB of them.

    Where somebody has settings of Log4j already, those count.
    """
    options = conf.get(_OPTIONS, LEAST[_OPTIONS])
    own = os.environ.get("SPARK_CONF_DIR")
    if "log4j" in options or (own and any(Path(own).glob("log4j*"))):
        return conf
    settings = folder / "log4j2.properties"
    file = str(log_file(folder)).replace("\\", "\\\\").replace("$", "$$")
    settings.write_text(_SETTINGS.format(options=_OPTIONS, file=file), encoding="utf-8")
    place = str(settings).replace("\\", "\\\\").replace('"', '\\"')
    return {**conf, _OPTIONS: f'{options} "-Dlog4j2.configurationFile={place}"'}
