-- Sends prepared bodies, each once: wrk -s load.lua URL -- FIRST COUNT FILE...
-- The requests are put together before the run begins, so that wrk does next to nothing while it measures. It gives the
-- figures in two lines of their own (see wrk.ts): its summary has percentiles, but no counts that could be added up.
local requests, sent = {}, 0
local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
end

function init(args)
  exhausted = false
  local first, count = tonumber(args[1]), tonumber(args[2])
  local head = "POST " .. wrk.path .. " HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port
    .. "\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: "
  local number = 0
  for i = 3, #args do
    for body in io.lines(args[i]) do
      if number >= first + count then break end
      if number >= first then requests[#requests + 1] = head .. #body .. "\r\n\r\n" .. body end
      number = number + 1
    end
  end
end

function request()
  sent = sent + 1
  if requests[sent] == nil then
    exhausted = true
    wrk.thread:stop()
    return ""
  end
  return requests[sent]
end

function done(summary, latency)
  local errors = summary.errors
  local exhausted = false
  for _, thread in ipairs(threads) do exhausted = exhausted or thread:get("exhausted") end
  io.write(string.format("bench requests=%d duration_us=%d connect=%d read=%d write=%d timeout=%d status=%d exhausted=%d\n",
    summary.requests, summary.duration, errors.connect, errors.read, errors.write, errors.timeout, errors.status,
    exhausted and 1 or 0))
  local parts = {}
  for i = 1, #latency do
    local us, count = latency(i)
    parts[i] = string.format("%d:%d", us, count)
  end
  io.write("latency_us ", table.concat(parts, " "), "\n")
end
