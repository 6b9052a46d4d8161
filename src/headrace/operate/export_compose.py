"""A pipeline and everything that its profile needs, as containers: a compose file and what it mounts.

The file follows the Compose Specification. Ports are published on the loopback only, passwords come from
`.env` and have no defaults, and all services together fit into a machine of 8 GB.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.operate.export_airflow_services import VARIABLES, airflow_services
from headrace.operate.export_facts import PANELS_TOKEN, Deployment, Neighbour
from headrace.operate.export_services import (
    CHECK,
    DASHBOARDS,
    GENERATOR_METRICS,
    IMAGES,
    MARK,
    PLUGINS,
    Service,
    asked,
    command,
    environment,
    ours,
    published,
    service,
)
from headrace.operate.export_yaml import to_yaml

__all__ = [
    "compose_services",
    "compose_text",
    "database_of",
    "has_dashboards",
    "needed_variables",
    "tables_in_grafana",
]


def compose_text(deployment: Deployment) -> str:
    """Return the compose file."""
    services = compose_services(deployment)
    named: dict[str, Any] = {
        volume.split(":")[0]: {}
        for service in services.values()
        for volume in service.get("volumes", [])
        if not volume.startswith(".")
    }
    document = {"name": deployment.name, "services": services, "volumes": named}
    return f"{MARK}\n# How to start it stands in docs/deploy/compose.md.\n\n{to_yaml(document)}"


def needed_variables(deployment: Deployment) -> tuple[str, ...]:
    """Return the variables that `.env` has to hold: compose refuses to start without one of them."""
    own = []
    if deployment.one("postgresql"):
        own = ["POSTGRES_PASSWORD", "WRITER_PASSWORD", "READER_PASSWORD"]
    if deployment.scheduled:
        own += VARIABLES
    if _watched(deployment):
        own.append("GRAFANA_PASSWORD")
    return (*own, *(name for name in deployment.variables if name not in own))


def compose_services(deployment: Deployment) -> dict[str, Service]:
    """Return every service by its name."""
    services: dict[str, Service] = {}
    for neighbour in deployment.neighbours:
        services[neighbour.host] = _NEIGHBOURS[neighbour.kind](deployment, neighbour)
        if neighbour.kind == "elasticsearch":
            services["kibana"] = _kibana(neighbour)
            services["kibana-objects"] = _kibana_objects(deployment)
    if deployment.on_spark:
        services |= _spark(deployment)
    started = {name: {"condition": "service_healthy"} for name in services if not name.startswith("kibana")}
    services["headrace"] = _headrace(deployment, started)
    producing = {**started, "headrace": {"condition": "service_healthy"}}
    for stream in deployment.polled:
        if stream in deployment.scheduled:
            continue  # who polls twice asks the API twice
        words = command(deployment, "poll", stream)
        facts = {"environment": environment(deployment), "depends_on": producing, **_log_of(deployment)}
        services[f"poller-{stream.replace('_', '-').lower()}"] = ours(
            deployment, "256m", words, **{key: fact for key, fact in facts.items() if fact}
        )
    if deployment.scheduled:
        services |= airflow_services(deployment, producing)
    if deployment.generates:
        services["generator"] = _generator(deployment, producing)
    if _watched(deployment):
        services["prometheus"] = _prometheus()
        services["grafana"] = _grafana(deployment)
    return services


def _watched(deployment: Deployment) -> bool:
    return deployment.metrics_port is not None


def _headrace(deployment: Deployment, started: Mapping[str, Any]) -> Service:
    # Executors call the driver back: by the name of its service, which is spark.driver.host then.
    driver = {"SPARK_LOCAL_HOSTNAME": "headrace"} if deployment.on_spark else {}
    ports = []
    if deployment.page_port:
        ports.append(published("PAGE_PORT", deployment.page_port))
    facts: dict[str, Any] = {
        "environment": {**environment(deployment), **driver},
        "depends_on": dict(started),
        "ports": ports,
        "volumes": ["data:/project/.headrace", "warehouse:/project/warehouse"],
        "healthcheck": {"test": ["CMD", *command(deployment, "status", "--json")], **CHECK},
        "stop_grace_period": "30s",
    }
    memory = "1792m" if deployment.on_spark else "1g"  # Spark's driver is a JVM beside it
    return ours(deployment, memory, command(deployment, "run"), **{k: v for k, v in facts.items() if v})


def _log_of(deployment: Deployment) -> dict[str, Any]:
    """Return what gives a producer the embedded log, where there is one."""
    return {"volumes": ["data:/project/.headrace"]} if deployment.embedded else {}


def _generator(deployment: Deployment, producing: Mapping[str, Any]) -> Service:
    facts: dict[str, Any] = {
        "environment": {
            **environment(deployment),
            "EVENTS_PER_SECOND": f"${{EVENTS_PER_SECOND:-{deployment.generator_rate:g}}}",
        },
        "depends_on": producing,
        **_log_of(deployment),
    }
    words = command(deployment, "generate", deployment.project.pipeline.name)
    if _watched(deployment):
        words += ["--metrics-port", str(GENERATOR_METRICS)]
    return ours(deployment, "256m", words, **facts)


def _kafka(deployment: Deployment, at: Neighbour) -> Service:
    """One broker that is its own controller; from the host it is reached on a listener of its own."""
    settings = {
        "NODE_ID": "1",
        "PROCESS_ROLES": "broker,controller",
        "CONTROLLER_QUORUM_VOTERS": f"1@{at.host}:9093",
        "LISTENERS": f"INSIDE://:{at.port},CONTROLLER://:9093,OUTSIDE://:29092",
        "ADVERTISED_LISTENERS": f"INSIDE://{at.host}:{at.port},OUTSIDE://localhost:${{KAFKA_PORT:-29092}}",
        "LISTENER_SECURITY_PROTOCOL_MAP": "INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT,OUTSIDE:PLAINTEXT",
        "INTER_BROKER_LISTENER_NAME": "INSIDE",
        "CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "LOG_DIRS": "/var/lib/kafka/data",
    }
    script = "/opt/kafka/bin/kafka-broker-api-versions.sh"
    environment = {f"KAFKA_{name}": value for name, value in settings.items()}
    return service(
        "1g",
        image=IMAGES["kafka"],
        environment={**environment, "KAFKA_HEAP_OPTS": "-Xms256m -Xmx512m"},
        ports=[published("KAFKA_PORT", 29092)],
        volumes=["kafka:/var/lib/kafka/data"],
        healthcheck={"test": ["CMD", script, "--bootstrap-server", f"{at.host}:{at.port}"], **CHECK},
    )


def _registry(deployment: Deployment, at: Neighbour) -> Service:
    words = ["headrace", "registry", "serve", "--host", "0.0.0.0", "--port", str(at.port)]  # noqa: S104
    check = ["CMD", "headrace", "registry", "list", "--url", f"http://localhost:{at.port}"]
    return ours(
        deployment,
        "256m",
        [*words, "--path", "/project/.headrace/registry.db"],
        volumes=["registry:/project/.headrace"],
        healthcheck={"test": check, **CHECK},
    )


def _users(deployment: Deployment, at: Neighbour) -> Service:
    """The blueprint's API with made-up users."""
    words = ["headrace", "blueprints", "serve-users", "--host", "0.0.0.0", "--port", str(at.port)]  # noqa: S104
    check = f"import urllib.request; urllib.request.urlopen('http://localhost:{at.port}/api/?results=1')"
    return ours(deployment, "256m", words, healthcheck={"test": ["CMD", "python", "-c", check], **CHECK})


def _postgresql(deployment: Deployment, at: Neighbour) -> Service:
    scripts = "/docker-entrypoint-initdb.d"
    mounts = ["postgresql:/var/lib/postgresql/data"]
    mounts.append(f"./postgresql/10-init.sql:{scripts}/10-init.sql:ro")
    if (deployment.project.folder / "sql" / "views.sql").is_file():
        mounts.append(f"../sql/views.sql:{scripts}/20-views.sql:ro")
    mounts.append(f"./postgresql/30-users.sh:{scripts}/30-users.sh:ro")
    return service(
        "512m",
        image=IMAGES["postgresql"],
        environment={
            "POSTGRES_DB": database_of(deployment),
            "POSTGRES_PASSWORD": asked("POSTGRES_PASSWORD"),
            "WRITER_PASSWORD": asked("WRITER_PASSWORD"),
            "READER_PASSWORD": asked("READER_PASSWORD"),
        },
        ports=[published("POSTGRES_PORT", at.port)],
        volumes=mounts,
        # Over TCP: while the scripts run, the server answers on its socket only.
        healthcheck={
            "test": ["CMD", "pg_isready", "-h", "127.0.0.1", "-U", "postgres", "-d", database_of(deployment)],
            **CHECK,
        },
        shm_size="128m",
    )


def database_of(deployment: Deployment) -> str:
    """Return the name of the database."""
    return deployment.name.replace("-", "_")


def _cassandra(deployment: Deployment, at: Neighbour) -> Service:
    return service(
        "1536m",
        image=IMAGES["cassandra"],
        environment={
            "MAX_HEAP_SIZE": "512M",
            "HEAP_NEWSIZE": "128M",
            "CASSANDRA_ENDPOINT_SNITCH": "SimpleSnitch",
        },
        ports=[published("CASSANDRA_PORT", at.port, 9042)],
        volumes=["cassandra:/var/lib/cassandra"],
        healthcheck={
            "test": ["CMD", "cqlsh", "-e", "SELECT now() FROM system.local"],
            **{**CHECK, "start_period": "60s"},
        },
    )


def _elasticsearch(deployment: Deployment, at: Neighbour) -> Service:
    return service(
        "1536m",
        image=IMAGES["elasticsearch"],
        environment={
            "discovery.type": "single-node",
            "xpack.security.enabled": "false",  # published on the loopback only, as all of this
            "ES_JAVA_OPTS": "-Xms512m -Xmx512m",
        },
        ports=[published("ELASTICSEARCH_PORT", at.port, 9200)],
        volumes=["elasticsearch:/usr/share/elasticsearch/data"],
        ulimits={"memlock": {"soft": -1, "hard": -1}},
        healthcheck={
            "test": ["CMD", "curl", "-fsS", "http://localhost:9200/_cluster/health"],
            **{**CHECK, "start_period": "60s"},
        },
    )


def _kibana(at: Neighbour) -> Service:
    return service(
        "1g",
        image=IMAGES["kibana"],
        environment={"ELASTICSEARCH_HOSTS": f"http://{at.host}:{at.port}"},
        depends_on={at.host: {"condition": "service_healthy"}},
        ports=[published("KIBANA_PORT", 5601)],
        healthcheck={
            "test": ["CMD", "curl", "-fsS", "http://localhost:5601/api/status"],
            **{**CHECK, "start_period": "60s"},
        },
    )


def _kibana_objects(deployment: Deployment) -> Service:
    """Imports the data views and the dashboard, once; again is the same as once."""
    objects = f"/objects/{deployment.project.pipeline.name}.ndjson"
    place = "http://kibana:5601/api/saved_objects/_import?overwrite=true"
    words = ["curl", "-fsS", "-X", "POST", place, "-H", "kbn-xsrf: headrace", "--form", f"file=@{objects}"]
    return {
        **service(
            "64m",
            image=IMAGES["kibana"],
            command=words,
            volumes=["./kibana:/objects:ro"],
            depends_on={"kibana": {"condition": "service_healthy"}},
        ),
        "restart": "on-failure",
    }


def _spark(deployment: Deployment) -> dict[str, Service]:
    """A master and a worker from our own image: workers need Python with headrace as the driver has it."""
    main = "org.apache.spark.deploy"
    check = "import urllib.request; urllib.request.urlopen('http://localhost:{}')"
    master = ours(
        deployment,
        "640m",
        ["spark-class", f"{main}.master.Master", "--host", "spark-master", "--port", "7077"],
        environment={"SPARK_DAEMON_MEMORY": "384m"},
        ports=[published("SPARK_PORT", 8080)],
        healthcheck={"test": ["CMD", "python", "-c", check.format(8080)], **CHECK},
    )
    worker = ours(
        deployment,
        "1792m",
        [
            "spark-class",
            f"{main}.worker.Worker",
            "--cores",
            "2",
            "--memory",
            "1g",
            "spark://spark-master:7077",
        ],
        environment={"SPARK_DAEMON_MEMORY": "256m"},
        depends_on={"spark-master": {"condition": "service_healthy"}},
        healthcheck={"test": ["CMD", "python", "-c", check.format(8081)], **CHECK},
    )
    return {"spark-master": master, "spark-worker": worker}


def _prometheus() -> Service:
    return service(
        "384m",
        image=IMAGES["prometheus"],
        command=["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.retention.time=7d"],
        ports=[published("PROMETHEUS_PORT", 9090)],
        volumes=["./prometheus:/etc/prometheus:ro", "prometheus:/prometheus"],
        depends_on={"headrace": {"condition": "service_started"}},
        healthcheck={"test": ["CMD", "wget", "-qO-", "http://localhost:9090/-/healthy"], **CHECK},
    )


def has_dashboards(deployment: Deployment) -> bool:
    """Return whether the project has dashboards of its own, in `grafana/`."""
    return any((deployment.project.folder / "grafana").glob("*.json"))


def _grafana(deployment: Deployment) -> Service:
    environment = {
        "GF_SECURITY_ADMIN_PASSWORD": asked("GRAFANA_PASSWORD"),
        "GF_USERS_ALLOW_SIGN_UP": "false",
    }
    if deployment.one("postgresql"):
        environment["READER_PASSWORD"] = asked("READER_PASSWORD")
    sources = tables_in_grafana(deployment)[1]
    kinds = {source["type"] for source in sources}
    if plugins := [f"{name}@{version}" for name, version in PLUGINS.items() if name in kinds]:
        environment["GF_PLUGINS_PREINSTALL"] = ",".join(plugins)
    if any(f"${PANELS_TOKEN}" in source.get("secureJsonData", {}).values() for source in sources):
        environment[PANELS_TOKEN] = asked(PANELS_TOKEN)
    mounts = ["./grafana/provisioning:/etc/grafana/provisioning:ro", "grafana:/var/lib/grafana"]
    mounts.append(f"./grafana/dashboards:{DASHBOARDS}/metrics:ro")
    if has_dashboards(deployment):
        mounts.append(f"../grafana:{DASHBOARDS}/project:ro")
    return service(
        "512m",
        image=IMAGES["grafana"],
        environment=environment,
        ports=[published("GRAFANA_PORT", 3000)],
        volumes=mounts,
        depends_on={"prometheus": {"condition": "service_healthy"}},
        healthcheck={"test": ["CMD", "wget", "-qO-", "http://localhost:3000/api/health"], **CHECK},
    )


def tables_in_grafana(deployment: Deployment) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return dashboards of the pipeline's panels, by their names, and the data sources.

    One for each Cassandra replica shows the panels over its tables, and one over the page all others.
    """
    from headrace.observe.grafana_tables import tables_dashboard
    from headrace.operate.export_panels import grafana_panels, page_dashboard, replicas_of

    name, shown = deployment.project.pipeline.name, set[str]()
    dashboards: dict[str, Any] = {}
    sources: list[dict[str, Any]] = []
    for replica in replicas_of(deployment.project, ("cassandra",)):
        panels, asked, _ = grafana_panels(deployment.project, replica)
        if panels:
            shown |= {each.panel.title for each in panels}
            dashboards[f"{name}-{replica}"] = tables_dashboard(name, replica, panels)
            sources += asked
    page = deployment.page_for_grafana
    of_page = page and page_dashboard(deployment.project, page, shown=shown, beside=dashboards)
    if of_page:
        file, dashboard, source = of_page
        dashboards[file] = dashboard
        sources.append(source)
    return dashboards, sources


_NEIGHBOURS = {
    "kafka": _kafka,
    "registry": _registry,
    "users": _users,
    "postgresql": _postgresql,
    "cassandra": _cassandra,
    "elasticsearch": _elasticsearch,
}
