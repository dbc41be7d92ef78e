"""What an agent's program imports: nothing of it knows a database, a policy engine or a server.

    from broker.client.task import task

    async with task(purpose="reconcile november", roles=["orders-db/readonly"]) as work:
        secret = await work.secret("orders-db/readonly")
        connection = await asyncpg.connect(secret["url"].reveal())

`broker.client.broker` is the REST surface itself, for agents and operators; `broker.client.child` runs another program
inside a task.
"""
