-- Goes before each record script where fakeredis runs it. The time is that of the yard's clock, and
-- so are the lifetimes of keys: fakeredis would count both in the machine's time.
-- Python puts NOW and LIFETIMES, the names of two keys, before it.
local redis = (function(server)
  local own = {}

  local function now_us()
    return server.call('GET', NOW)
  end

  local function expire(key, after_ms)
    local end_us = string.format('%.0f', tonumber(now_us()) + 1000 * tonumber(after_ms))
    server.call('ZADD', LIFETIMES, end_us, key)
  end

  function own.TIME()
    local now = now_us()
    return {string.sub(now, 1, -7), string.sub(now, -6)}
  end

  function own.PEXPIRE(key, after_ms)
    if server.call('EXISTS', key) == 0 then return 0 end
    expire(key, after_ms)
    return 1
  end

  function own.PERSIST(key)
    return server.call('ZREM', LIFETIMES, key)
  end

  function own.SET(key, value, option, after_ms)
    if option and option ~= 'PX' then error('server.lua knows of SET only the option PX') end
    server.call('ZREM', LIFETIMES, key)
    local answer = server.call('SET', key, value)
    if option then expire(key, after_ms) end
    return answer
  end

  function own.DEL(...)
    server.call('ZREM', LIFETIMES, ...)
    return server.call('DEL', ...)
  end

  local function call(name, ...)
    if own[name] then return own[name](...) end
    return server.call(name, ...)
  end

  return {call = call}
end)(redis)
