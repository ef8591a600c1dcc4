-- What an event is about has been found by audit_named since 0016: each append kept this one for nobody.
DROP INDEX audit_of_target;
