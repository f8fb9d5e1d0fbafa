-- The table of the projection "usage": what an organization used on one UTC day.
CREATE TABLE usage_days (
  org_id         uuid   NOT NULL,
  day            date   NOT NULL,
  runs           bigint NOT NULL,       -- that ended
  steps          bigint NOT NULL,       -- of all attempts, as what follows
  assertions     bigint NOT NULL,
  response_bytes bigint NOT NULL,
  run_us         bigint NOT NULL,
  PRIMARY KEY (org_id, day)
);
