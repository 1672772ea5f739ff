-- What the server shows: measurements over time, and how far the log was told to others. None of it is the truth, and
-- losing the file loses charts and repeats messages, no more.

-- What is measured: an environment, one of its nodes, or a release in it.
create table entity (
    id integer primary key,
    kind integer not null,      -- 0: environment, 1: node, 2: release
    environment text not null,
    name text not null,         -- of the node or the module
    version text not null,      -- of the release
    seen integer not null,      -- the last day with a sample, in days since 1970
    unique (kind, environment, name, version)
) strict;

-- Every ten seconds. Ordered by time, so that a round of samples is written to neighbouring pages, and old ones are
-- removed from neighbouring pages.
create table fine (
    at integer not null,        -- s since 1970, a multiple of 10
    entity integer not null,
    count integer not null,     -- samples in it
    cpu integer not null,       -- 1/100 %
    memory integer not null,    -- 1/100 %
    latency integer not null,   -- us
    errors integer not null,    -- 1/100 % of requests
    rate integer not null,      -- requests in 10 s
    primary key (at, entity)
) strict, without rowid;

-- The same by minutes, and by quarters of an hour.
create table minute (
    at integer not null, entity integer not null, count integer not null, cpu integer not null,
    memory integer not null, latency integer not null, errors integer not null, rate integer not null,
    primary key (at, entity)
) strict, without rowid;
create table quarter (
    at integer not null, entity integer not null, count integer not null, cpu integer not null,
    memory integer not null, latency integer not null, errors integer not null, rate integer not null,
    primary key (at, entity)
) strict, without rowid;

-- How far each reader of the log has come: everything up to `seq` is done with.
create table cursor (
    name text primary key,
    seq integer not null,
    attempts integer not null,  -- at what comes next
    due integer not null,       -- when it is tried again, ms since 1970
    error text not null         -- why the last attempt failed
) strict;

-- What was given up on.
create table dead_letter (
    id text not null,           -- the event's
    endpoint text not null,
    type text not null,
    wall integer not null,      -- when it was given up on, ms since 1970
    attempts integer not null,
    error text not null,
    body text not null,
    primary key (endpoint, id)
) strict;
create index dead_letter_by_age on dead_letter (endpoint, wall);
