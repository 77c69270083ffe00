#!/bin/sh
# Redis reads its configuration from standard input, so that its password is on no command line.
exec redis-server - <<END
dir /data
appendonly yes
maxmemory 384mb
maxmemory-policy noeviction
requirepass $(cat /run/secrets/redis_password)
END
