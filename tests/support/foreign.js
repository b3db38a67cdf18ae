// Another language's Celery client: publishes one task and prints its id, then its result.
// Arguments: broker URL, backend URL, queue, task, JSON arguments.
const celery = require("celery-node");

const [broker, backend, queue, task, args] = process.argv.slice(2);
const client = celery.createClient(broker, backend, queue);
const result = client.createTask(task).applyAsync(JSON.parse(args));
console.log(result.taskId);
result
  .get(30000)
  .then((value) => console.log(JSON.stringify(value)))
  .catch((error) => console.log("failed: " + JSON.stringify(error.message)))
  .finally(() => client.disconnect());
