-- Processes whose own end ended a task are remembered at a start: they are few, and tasks are many.
CREATE INDEX tasks_of_ended_processes ON tasks (ended_at, instance) WHERE end_reason = 'process-ended';
