-- What a person was shown when they named a policy, as QUEUE/JOB-ID:RETRY-COUNT: that policy is for these attempts, and no others.
ALTER TABLE node_command ADD COLUMN attempts text[];
