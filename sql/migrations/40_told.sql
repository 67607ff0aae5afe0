-- A moment as the program's commands tell it: as the files tell time, and as servers do.
CREATE FUNCTION ingest.told(moment timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN to_char(moment AT TIME ZONE 'Africa/Nairobi', 'YYYY-MM-DD HH24:MI:SS') || ' EAT ('
    || CASE WHEN (moment AT TIME ZONE 'Africa/Nairobi')::date = (moment AT TIME ZONE 'UTC')::date THEN ''
            ELSE to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD ') END
    || to_char(moment AT TIME ZONE 'UTC', 'HH24:MI:SS') || ' UTC)';
