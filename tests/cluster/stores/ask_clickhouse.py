"""A process of its own that asks chDB, whose library is half a gigabyte: `python ask_clickhouse.py FOLDER < INPUT`.

In: the folder with chDB; as JSON the table's definition, its rows and queries. Out: the rows that each query finds.
"""

import json
import sys

sys.path.insert(0, sys.argv[1])

from chdb import session

given = json.load(sys.stdin)
engine = session.Session()
engine.query(given["table"])
engine.query("INSERT INTO otel_logs FORMAT JSONEachRow\n" + "\n".join(map(json.dumps, given["rows"])))
answers = [str(engine.query(query, "JSONEachRow")) for query in given["queries"]]
json.dump([[json.loads(line) for line in answer.splitlines() if line] for answer in answers], sys.stdout)
