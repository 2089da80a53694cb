-- Schema 8: what a sweep stores counts its rows too: answers, metrics, norms, stored replies, scores
-- (artifact.h has the bytes of each).  They are counted where they are taken, not by triggers.

ALTER TABLE sweep ADD COLUMN row_bytes INTEGER NOT NULL DEFAULT 0;

UPDATE sweep SET row_bytes = row_bytes + t.bytes FROM
    (SELECT c.sweep AS id, sum(200 + length(CAST(a.text AS BLOB)) + length(CAST(a.raw AS BLOB)))
            AS bytes
     FROM answer a JOIN cell c ON c.id = a.cell GROUP BY c.sweep) AS t
WHERE t.id = sweep.id;

UPDATE sweep SET row_bytes = row_bytes + t.bytes FROM
    (SELECT j.sweep AS id, sum(m.bytes) AS bytes
     FROM (SELECT result, sum(64 + length(CAST(name AS BLOB))) AS bytes FROM metric
           GROUP BY result) AS m
     JOIN job j ON j.id = (SELECT max(job) FROM job_cell WHERE result = m.result)
     GROUP BY j.sweep) AS t
WHERE t.id = sweep.id;

UPDATE sweep SET row_bytes = row_bytes + t.bytes FROM
    (SELECT j.sweep AS id, sum(200 + length(r.raw)) AS bytes
     FROM judge_raw r JOIN judge_call k ON k.id = r.call JOIN judge j ON j.id = k.judge
     GROUP BY j.sweep) AS t
WHERE t.id = sweep.id;

UPDATE sweep SET row_bytes = row_bytes + t.bytes FROM
    (SELECT j.sweep AS id, sum(40 + length(CAST(s.reason AS BLOB))) AS bytes
     FROM score s JOIN item i ON i.id = s.item JOIN judge j ON j.id = i.judge
     GROUP BY j.sweep) AS t
WHERE t.id = sweep.id;
