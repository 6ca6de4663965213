"""Checks the Airflow DAG and the cron expressions. Needs Airflow."""

import pathlib
import re
import sys

from airflow.dag_processing.dagbag import DagBag
from croniter import croniter

here = pathlib.Path(__file__).parent
faults = []

bag = DagBag(dag_folder=str(here / "airflow"))
faults += [f"{file}: {error}" for file, error in bag.import_errors.items()]
dag = bag.dags.get("advseg_nightly")
if dag is None:
    faults.append(f"the DAGs are {list(bag.dags)}, without advseg_nightly")
elif dag.max_active_runs != 1 or dag.catchup or "advseg nightly --config" not in dag.get_task("nightly").bash_command:
    faults.append("the DAG must run advseg nightly --config, one night at a time and none made up for")

expressions = {
    "cron/advseg-nightly": r"^((?:\S+ ){5})advseg nice .*advseg nightly --config",
    "kubernetes/cronjob.yaml": r'^  schedule: "([^"]+)"$',
}
for file, pattern in expressions.items():
    found = re.findall(pattern, (here / file).read_text(), re.MULTILINE)
    if len(found) != 1 or not croniter.is_valid(found[0].strip()):
        faults.append(f"{file}: the cron expressions are {found}")

print("\n".join(faults) or f"{len(bag.dags)} DAG, {len(expressions)} cron expressions")
sys.exit(bool(faults))
