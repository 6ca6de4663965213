"""Runs advseg's night under Airflow, one at a time.

The program and its configuration file lie on the worker. Set the variable
advseg_config when the file is elsewhere.
"""

from datetime import datetime, timedelta, timezone

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG(
    dag_id="advseg_nightly",
    description="Label new images, retrain the segmentation model, promote it if it is better",
    schedule="17 1 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    tags=["advseg"],
    doc_md=__doc__,
):
    BashOperator(
        task_id="nightly",
        bash_command="exec advseg nightly --config {{ var.value.get('advseg_config', '/etc/advseg/nightly.yaml') }} --quiet --log-format json",
        append_env=True,
        # The gate refused the candidate: the night did its work, but changed nothing.
        skip_on_exit_code=3,
        # A night that was interrupted goes on where it stopped.
        retries=2,
        retry_delay=timedelta(minutes=10),
        execution_timeout=timedelta(hours=20),
    )
